"""Put letters away for good: nothing is deleted, but they are no longer open, and why is on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from core.clock import Clock
from core.errors import Fault, InvalidInputError
from metering.dead_letters.domain.letter import Action, Letter, Place, state_of
from metering.dead_letters.ports import LetterActions, Letters
from metering.dead_letters.replay_letters import check_actor

_IN_HAND = 200
_IN_HAND_BYTES = 16_000_000
_REASON_LENGTH_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Discarded:
    """How a letter fared; `code` and `reason` say why it was refused."""

    place: Place
    outcome: Literal["discarded", "refused"]
    code: str = ""
    reason: str = ""


async def discard_letters(
    places: Sequence[Place],
    *,
    actor: str,
    reason: str,
    letters: Letters,
    actions: LetterActions,
    clock: Clock,
    make_id: Callable[[], str],
) -> list[Discarded]:
    """Discard open letters; returns one result each, in order of place.

    Codes of letters that are not: `not_found`, `already_replayed`, `already_discarded`. Raises `InvalidInputError`
    (`missing_reason`, `invalid_actor`).
    """
    check_actor(actor)
    if not 0 < len(reason.strip()) <= _REASON_LENGTH_MAX:
        why = f"say why, in 1 to {_REASON_LENGTH_MAX} characters"
        raise InvalidInputError([Fault("missing_reason", why, "reason")])
    wanted = sorted(set(places))
    results: list[Discarded] = []
    while wanted:
        part = wanted[:_IN_HAND]
        loaded = await letters.load(part, _IN_HAND_BYTES)
        settled = part if len(loaded) == len(part) or not loaded else [p for p in part if p <= loaded[-1].place]
        wanted = wanted[len(settled) :]
        known = await actions.find(settled)
        there = {letter.place: letter for letter in loaded}
        begun: list[Action] = []
        for place in settled:
            letter, state = there.get(place), state_of(known.get(place, ()))
            if letter is None:
                results.append(Discarded(place, "refused", "not_found", f"there is no dead letter at {place}"))
            elif state != "open":
                results.append(Discarded(place, "refused", f"already_{state}", f"it was {state} before"))
            else:
                begun.append(_action(letter, actor, reason, clock, make_id))
                results.append(Discarded(place, "discarded"))
        await actions.begin(begun)
    return results


def _action(letter: Letter, actor: str, reason: str, clock: Clock, make_id: Callable[[], str]) -> Action:
    now = clock.now()
    return Action(
        action_id=make_id(),
        place=letter.place,
        kind="discard",
        code=letter.code,
        letter_at_ms=letter.at_ms,
        actor=actor,
        reason=reason,
        letter_digest=letter.digest,
        sent_digest=None,
        sent=None,
        begun_at=now,
        done_at=now,
    )
