"""What became of letters and how many there are: memory and PostgreSQL alike."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.errors import UnavailableError
from metering.dead_letters.adapters.postgres_actions import PostgresLetters
from metering.dead_letters.domain.letter import Action, Place, digest_of
from metering.dead_letters.ports import CodeCount
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from tests.metering.dead_letters.memory import MemoryActions

AT = datetime(2026, 11, 20, 12, 0, 0, 123_000, tzinfo=UTC)
DAY = AT.date()
_numbers = itertools.count()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def where(request: pytest.FixtureRequest) -> Settings | None:
    """Settings of the real store; None for the one in memory."""
    return None if request.param == "memory" else request.getfixturevalue("settings")


@pytest.fixture
async def store(where: Settings | None) -> AsyncIterator[Any]:
    if where is None:
        yield MemoryActions()
        return
    async with create_pool(where, max_size=1) as pool:
        yield PostgresLetters(pool)


@pytest.fixture
def topic() -> str:
    """A topic's name of its own: the tables are shared."""
    return f"contract.{next(_numbers)}"


def replay(place: Place, **changes: Any) -> Action:
    letter_at_ms = int(AT.timestamp() * 1_000)
    digest, sent = digest_of(b"a"), digest_of(b"b")
    action = Action(str(uuid4()), place, "replay", "c", letter_at_ms, "ann", "why", digest, sent, None, AT, None)
    return replace(action, **changes)


def discard(place: Place, **changes: Any) -> Action:
    return replay(place, **{"kind": "discard", "sent_digest": None, "done_at": AT, **changes})


async def test_an_action_is_found_as_it_was_written(store: Any, topic: str):
    first, second = Place(topic, 0, 2**40), Place(topic, 1, 2**40)
    begun, done = replay(first), discard(second)
    await store.begin([begun, done])
    assert await store.find([first, second, Place(topic, 2, 2**40)]) == {first: (begun,), second: (done,)}
    assert await store.find([]) == {}


async def test_a_replay_is_finished_once(store: Any, topic: str):
    place, sent = Place(topic, 0, 1), Place("usage.events", 3, 7)
    begun = replay(place)
    await store.begin([begun])
    await store.finish({begun.action_id: sent}, AT + timedelta(seconds=1))
    await store.finish({begun.action_id: Place("usage.events", 3, 8)}, AT + timedelta(seconds=2))
    await store.finish({}, AT)
    assert await store.find([place]) == {place: (replace(begun, sent=sent, done_at=AT + timedelta(seconds=1)),)}


async def test_actions_stand_in_the_order_they_were_begun(store: Any, topic: str):
    place = Place(topic, 0, 1)
    later, earlier = replay(place, begun_at=AT + timedelta(hours=1)), discard(place)
    await store.begin([later])
    await store.begin([earlier])
    assert (await store.find([place]))[place] == (earlier, later)


async def test_counts_go_on_only_from_where_they_were(store: Any, topic: str):
    partition = (topic, 0)
    assert await store.add(partition, 0, 10, {("a", DAY): 3, ("b", DAY): 1})
    assert not await store.add(partition, 0, 10, {("a", DAY): 3})
    assert await store.add(partition, 10, 20, {("a", DAY): 1, ("a", DAY - timedelta(days=1)): 5})
    assert (await store.progress())[partition] == 20
    assert await store.counts({topic: None}) == [CodeCount(topic, "a", 9, 9), CodeCount(topic, "b", 1, 1)]
    assert await store.counts({topic: DAY}) == [CodeCount(topic, "a", 4, 4), CodeCount(topic, "b", 1, 1)]
    assert await store.counts({topic: date(2027, 1, 1)}) == []


async def test_a_settled_letter_is_not_open_however_often_it_was_settled(store: Any, topic: str):
    await store.add((topic, 0), 0, 3, {("c", DAY): 3})
    twice, begun_only, not_counted_yet = Place(topic, 0, 0), Place(topic, 0, 1), Place(topic, 0, 3)
    await store.begin([discard(twice), replay(begun_only), discard(not_counted_yet)])
    again = replay(twice)
    await store.begin([again])
    await store.finish({again.action_id: Place("usage.events", 0, 1)}, AT)
    assert await store.counts({topic: DAY}) == [CodeCount(topic, "c", 3, 2)]


async def test_a_topic_made_anew_is_counted_anew(store: Any, topic: str):
    await store.add((topic, 0), 0, 10, {("a", DAY): 3})
    await store.add((topic, 1), 0, 10, {("a", DAY): 1})
    await store.start_over((topic, 0), 2)
    assert await store.counts({topic: DAY}) == [CodeCount(topic, "a", 1, 1)]
    assert await store.add((topic, 0), 2, 4, {("a", DAY): 1})


async def test_a_store_that_is_away_is_an_outage(tmp_path: Any):
    away = load_settings(home=tmp_path, postgres_url="postgresql://nobody@127.0.0.1:1/none")
    pool = create_pool(away, max_size=1)
    await pool.open(wait=False)
    pool_store = PostgresLetters(pool, wait_seconds=0.2)
    try:
        with pytest.raises(UnavailableError):
            await pool_store.progress()
    finally:
        await pool.close()
