"""Replay and discard: what is on record when, what a crash leaves behind, what is refused; and counting."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.clock import ManualClock
from core.errors import InvalidInputError
from core.usage_event import Rejection
from metering.dead_letters import count_letters as counting
from metering.dead_letters import replay_letters as replaying
from metering.dead_letters.count_letters import count_letters
from metering.dead_letters.discard_letters import discard_letters
from metering.dead_letters.domain.letter import Place, digest_of, state_of
from metering.dead_letters.ports import CodeCount
from metering.dead_letters.replay_letters import Replayed, ReplayOrder, replay_letters
from tests.metering.dead_letters.memory import MemoryActions, MemoryLetters, MemorySender, dead

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
USAGE = ("usage.rejected", 0)
BILLED = CodeCount("billing.rejected", "a", 1, 1)
BY_ANN = ReplayOrder("ann")


class Desk:
    def __init__(self) -> None:
        self.letters = MemoryLetters([USAGE, ("usage.rejected", 1), ("billing.rejected", 0)])
        self.actions, self.sender, self.clock = MemoryActions(), MemorySender(), ManualClock(NOW)
        self.judged: list[tuple[str, bytes]] = []
        self._ids = itertools.count()

    def put(self, **changes: Any) -> Place:
        return self.letters.put(USAGE, dead(**changes), key=b"acme")

    async def judge(self, topic: str, value: bytes) -> Rejection | None:
        self.judged.append((topic, value))
        return Rejection("unknown_meter", "still no meter") if b"coffee" in value else None

    async def replay(self, *places: Place, order: ReplayOrder = BY_ANN) -> list[Replayed]:
        return await replay_letters(
            places,
            order,
            letters=self.letters,
            actions=self.actions,
            sender=self.sender,
            judge=self.judge,
            clock=self.clock,
            make_id=lambda: f"action-{next(self._ids)}",
        )

    async def discard(self, *places: Place, reason: str = "a test of ours", actor: str = "ann") -> list[Any]:
        return await discard_letters(
            places,
            actor=actor,
            reason=reason,
            letters=self.letters,
            actions=self.actions,
            clock=self.clock,
            make_id=lambda: f"action-{next(self._ids)}",
        )

    def state(self, place: Place) -> str:
        return state_of([action for action in self.actions.actions.values() if action.place == place])


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_replay_is_on_record_with_who_why_and_where_it_went(desk: Desk):
    place = desk.put()
    (result,) = await desk.replay(place, order=ReplayOrder("ann", "the meter is there now"))
    assert (result.outcome, result.sent) == ("replayed", Place("usage.events", 0, 0))
    (action,) = desk.actions.actions.values()
    assert (action.actor, action.reason, action.sent) == ("ann", "the meter is there now", result.sent)
    assert action.letter_digest == action.sent_digest == digest_of(desk.sender.sent[0].value)
    assert desk.state(place) == "replayed"


@pytest.mark.parametrize("step", ["send", "finish"])
async def test_a_crash_between_the_steps_leaves_the_letter_open_and_it_can_be_sent_again(
    desk: Desk, step: str, monkeypatch: pytest.MonkeyPatch
):
    place = desk.put()

    async def crash(*_: Any) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as crashing:
        crashing.setattr(desk.sender if step == "send" else desk.actions, step, crash)
        with pytest.raises(SystemExit):
            await desk.replay(place)
    assert len(desk.actions.actions) == 1, "begun before anything is sent"
    assert desk.state(place) == "open"
    assert [result.outcome for result in await desk.replay(place)] == ["replayed"]
    values = {replay.value for replay in desk.sender.sent}
    assert len(values) == 1, "sent again, the very same bytes: its identity counts once"


async def test_nothing_is_sent_that_could_not_be_written_down(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    place = desk.put()

    async def fail(*_: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(desk.actions, "begin", fail)
    with pytest.raises(ConnectionResetError):
        await desk.replay(place)
    assert desk.sender.sent == []


async def test_what_the_broker_did_not_confirm_stays_open(desk: Desk):
    place, desk.sender.refusals = desk.put(), 1
    (result,) = await desk.replay(place)
    assert (result.outcome, result.code, desk.state(place)) == ("failed", "unavailable", "open")
    assert (await desk.replay(place))[0].outcome == "replayed"


async def test_a_settled_letter_is_sent_again_only_when_asked_for(desk: Desk):
    replayed, thrown_away = desk.put(), desk.put()
    await desk.replay(replayed)
    await desk.discard(thrown_away)
    results = await desk.replay(replayed, thrown_away)
    assert [(r.outcome, r.code) for r in results] == [
        ("refused", "already_replayed"), ("refused", "already_discarded"),
    ]  # fmt: skip
    desk.clock.advance(timedelta(seconds=1))
    results = await desk.replay(replayed, thrown_away, order=ReplayOrder("ann", again=True))
    assert [result.outcome for result in results] == ["replayed", "replayed"]
    assert desk.state(thrown_away) == "replayed"


async def test_refused_letters_stop_no_others_and_nothing_is_recorded_of_them(desk: Desk):
    good, tombstone = desk.put(), desk.put(body=None)
    cut = desk.put(body=b"ab", reason="x (only the first 2 of 3 bytes are kept here)")
    missing, elsewhere = Place("usage.rejected", 0, 99), Place("usage.rejected", 7, 0)
    results = {r.place: (r.outcome, r.code) for r in await desk.replay(missing, tombstone, good, cut, good, elsewhere)}
    assert results == {
        good: ("replayed", ""),
        tombstone: ("refused", "nothing_to_replay"),
        cut: ("refused", "body_incomplete"),
        missing: ("refused", "not_found"),
        elsewhere: ("refused", "not_found"),
    }
    assert {action.place for action in desk.actions.actions.values()} == {good}


async def test_many_and_large_letters_are_sent_in_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replaying, "_IN_HAND", 7)
    monkeypatch.setattr(replaying, "_IN_HAND_BYTES", 100)
    places = [desk.put(body=b'{"subject":"acme"}' + b" " * (40 * (n % 4))) for n in range(30)]
    desk.letters.records[USAGE][11] = None
    results = await desk.replay(*places)
    assert [result.place for result in results] == places
    assert [result.place for result in results if result.outcome != "replayed"] == [places[11]]
    assert len(desk.sender.sent) == 29


async def test_a_dry_run_says_what_would_be_refused_again_and_leaves_no_trace(desk: Desk):
    good, bad = desk.put(), desk.put(body=b'{"subject":"acme","type":"coffee"}')
    results = await desk.replay(good, bad, order=ReplayOrder("ann", dry_run=True))
    assert [(r.outcome, r.code) for r in results] == [("would_replay", ""), ("would_replay", "unknown_meter")]
    assert desk.judged[0] == ("usage.events", dead().body)
    assert not desk.actions.actions
    assert not desk.sender.sent


async def test_a_mended_body_is_sent_instead_and_both_digests_are_kept(desk: Desk):
    place, mended = desk.put(body=b"{broken"), b'{"subject":"globex"}'
    (result,) = await desk.replay(place, order=ReplayOrder("ann", mended=mended))
    assert result.outcome == "replayed"
    assert (desk.sender.sent[0].value, desk.sender.sent[0].key) == (mended, b"globex")
    (action,) = desk.actions.actions.values()
    assert (action.letter_digest, action.sent_digest) == (digest_of(b"{broken"), digest_of(mended))


async def test_a_mended_body_is_for_one_letter(desk: Desk):
    with pytest.raises(InvalidInputError, match="one_letter_only"):
        await desk.replay(desk.put(), desk.put(), order=ReplayOrder("ann", mended=b"{}"))


@pytest.mark.parametrize("actor", ["", " ", "a\nb", "x" * 129])
async def test_somebody_does_it(desk: Desk, actor: str):
    with pytest.raises(InvalidInputError, match="invalid_actor"):
        ReplayOrder(actor)
    with pytest.raises(InvalidInputError, match="invalid_actor"):
        await desk.discard(desk.put(), actor=actor)


async def test_a_discard_has_a_reason_and_happens_once(desk: Desk):
    place = desk.put()
    with pytest.raises(InvalidInputError, match="missing_reason"):
        await desk.discard(place, reason=" ")
    assert [result.outcome for result in await desk.discard(place)] == ["discarded"]
    missing = Place("usage.rejected", 0, 99)
    assert [result.code for result in await desk.discard(place, missing)] == ["already_discarded", "not_found"]
    (action,) = desk.actions.actions.values()
    assert (action.reason, action.sent, action.done_at) == ("a test of ours", None, NOW)


async def test_letters_are_read_once_to_be_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counting, "_BLOCK", 4)
    at_ms = int(NOW.timestamp() * 1_000)

    async def counts(looked_at_max: int | None = None) -> tuple[list[CodeCount], bool]:
        return await count_letters(
            letters=desk.letters, tallies=desk.actions, clock=desk.clock, looked_at_max=looked_at_max
        )

    places = [desk.letters.put(USAGE, dead("a" if n % 3 else "b"), at_ms=at_ms) for n in range(9)]
    billing = desk.letters.put(("billing.rejected", 0), dead("a"), at_ms=at_ms)
    few = [BILLED, CodeCount("usage.rejected", "a", 2, 2), CodeCount("usage.rejected", "b", 2, 2)]
    assert await counts(looked_at_max=5) == (few, False)
    await desk.discard(places[0], places[8])
    await desk.replay(places[1])
    await desk.replay(places[1], order=ReplayOrder("ann", again=True))
    found = [BILLED, CodeCount("usage.rejected", "a", 6, 4), CodeCount("usage.rejected", "b", 3, 2)]
    assert await counts() == (found, True)
    desk.letters.reads = 0
    assert await counts() == (found, True)
    assert desk.letters.reads == 0
    # Usage's letters are kept for 90 days, billing's for ever.
    desk.clock.advance(timedelta(days=91))
    assert await counts() == ([BILLED], True)
    desk.letters.records[billing.topic, 0].clear()
    assert await counts() == ([], True)
