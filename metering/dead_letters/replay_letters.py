"""Send letters back to where they came from.

Each replay is written down (begun) before anything is sent and finished when the broker has confirmed it. A crash
before the sending, or between sending and finishing, leaves the letter open: nothing is lost, and replaying it again
is safe, because a usage event counts once by its identity and every billing consumer is idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from metering.dead_letters.domain.letter import Action, Letter, Place, state_of
from metering.dead_letters.domain.replay import Replay, replay_of
from metering.dead_letters.ports import LetterActions, LetterJudge, Letters, LetterSender

# So many letters, and so many bytes of bodies, are in hand at once.
_IN_HAND = 200
_IN_HAND_BYTES = 16_000_000

Outcome = Literal["replayed", "would_replay", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a letter fared. `code` and `reason` say why it was refused or failed; `sent` is where the replay stands.

    Of a dry run, `code` of a letter that would be replayed says how it would be refused again now ("" = it would not).
    """

    place: Place
    outcome: Outcome
    code: str = ""
    reason: str = ""
    sent: Place | None = None


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """Who replays and why; `again` also those that were replayed or discarded, `mended` replaces the (one) body."""

    actor: str
    reason: str = ""
    again: bool = False
    dry_run: bool = False
    mended: bytes | None = None

    def __post_init__(self) -> None:
        check_actor(self.actor)


def check_actor(actor: str) -> None:
    """Raise `InvalidInputError` (`invalid_actor`) unless somebody is named."""
    if not (0 < len(actor) <= 128 and actor.isprintable() and actor.strip()):
        raise InvalidInputError([Fault("invalid_actor", "say who does it: 1 to 128 printable characters", "by")])


async def replay_letters(
    places: Sequence[Place],
    order: ReplayOrder,
    *,
    letters: Letters,
    actions: LetterActions,
    sender: LetterSender,
    judge: LetterJudge,
    clock: Clock,
    make_id: Callable[[], str],
) -> list[Replayed]:
    """Replay the letters at these places; returns one result each, in order of place.

    Codes of letters that are not sent: `not_found`, `already_replayed`, `already_discarded`, those of `replay_of`,
    and `unavailable` when the broker did not confirm (then the letter stays open). Raises `InvalidInputError`
    (`one_letter_only`) if a mended body is given for several.
    """
    wanted = sorted(set(places))
    if order.mended is not None and len(wanted) != 1:
        raise InvalidInputError([Fault("one_letter_only", "a mended body replaces that of one letter", "edit")])
    results: list[Replayed] = []
    while wanted:
        loaded = await letters.load(wanted[:_IN_HAND], _IN_HAND_BYTES)
        reached = loaded[-1].place if loaded and len(loaded) < len(wanted[:_IN_HAND]) else wanted[:_IN_HAND][-1]
        there = {letter.place: letter for letter in loaded}
        # Places up to the last one loaded are settled: what is missing among them is not there (any more).
        settled = [place for place in wanted[:_IN_HAND] if place <= reached]
        wanted = wanted[len(settled) :]
        results += [
            Replayed(place, "refused", "not_found", f"there is no dead letter at {place}")
            for place in settled
            if place not in there
        ]
        results += await _replay(loaded, order, actions, sender, judge, clock, make_id)
    return sorted(results, key=lambda result: result.place)


async def _replay(
    loaded: Sequence[Letter],
    order: ReplayOrder,
    actions: LetterActions,
    sender: LetterSender,
    judge: LetterJudge,
    clock: Clock,
    make_id: Callable[[], str],
) -> list[Replayed]:
    known = await actions.find([letter.place for letter in loaded])
    results: list[Replayed] = []
    ready: list[tuple[Letter, Replay]] = []
    for letter in loaded:
        state = state_of(known.get(letter.place, ()))
        replay = replay_of(letter, order.mended)
        if state != "open" and not order.again:
            reason = f"it was {state} before; ask for it again to send it once more"
            results.append(Replayed(letter.place, "refused", f"already_{state}", reason))
        elif isinstance(replay, Fault):
            results.append(Replayed(letter.place, "refused", replay.code, replay.reason))
        else:
            ready.append((letter, replay))
    if order.dry_run:
        for letter, replay in ready:
            refusal = await judge(replay.topic, replay.value)
            code, reason = (refusal.code, refusal.reason) if refusal else ("", "")
            results.append(Replayed(letter.place, "would_replay", code, reason))
        return results
    if not ready:
        return results
    begun = [_action(letter, replay, order, clock, make_id) for letter, replay in ready]
    await actions.begin(begun)
    sent = await sender.send([replay for _, replay in ready])
    landed = {action.action_id: to for action, to in zip(begun, sent, strict=True) if isinstance(to, Place)}
    await actions.finish(landed, clock.now())
    for (letter, _), to in zip(ready, sent, strict=True):
        if isinstance(to, Place):
            results.append(Replayed(letter.place, "replayed", sent=to))
        else:
            results.append(Replayed(letter.place, "failed", "unavailable", to))
    return results


def _action(letter: Letter, replay: Replay, order: ReplayOrder, clock: Clock, make_id: Callable[[], str]) -> Action:
    return Action(
        action_id=make_id(),
        place=letter.place,
        kind="replay",
        code=letter.code,
        letter_at_ms=letter.at_ms,
        actor=order.actor,
        reason=order.reason,
        letter_digest=letter.digest,
        sent_digest=replay.digest,
        sent=None,
        begun_at=clock.now(),
        done_at=None,
    )
