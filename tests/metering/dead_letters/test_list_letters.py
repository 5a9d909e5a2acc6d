"""Lists: pages together are the whole list, whatever their size; a page reads a bounded part of the topics."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInputError
from metering.dead_letters import list_letters as listing
from metering.dead_letters.domain.letter import Action, Place, digest_of
from metering.dead_letters.domain.letter_filter import LetterFilter, Order
from metering.dead_letters.list_letters import list_letters
from tests.metering.dead_letters.memory import MemoryActions, MemoryLetters, dead

PARTITIONS = [("usage.rejected", 0), ("usage.rejected", 1), ("billing.rejected", 0)]
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def discarded(place: Place) -> Action:
    return Action(str(place), place, "discard", "c", 0, "ann", "why", digest_of(b""), None, None, NOW, NOW)


async def all_pages(
    wanted: LetterFilter, letters: MemoryLetters, actions: MemoryActions, order: Order, limit: int, **bounds: int
) -> list[Place]:
    found: list[Place] = []
    cursor: str | None = None
    for _ in range(1_000):
        page = await list_letters(
            wanted, letters=letters, actions=actions, order=order, limit=limit, cursor=cursor, **bounds
        )
        assert len(page.letters) <= limit
        found += [letter.head.place for letter in page.letters]
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("the list never ends")


# (partition, ms since the letter before, code, discarded, a marker before it)
LETTERS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from("ab"), st.booleans(), st.booleans()), max_size=40
)


@given(
    LETTERS,
    st.integers(1, 7),
    st.sampled_from(["newest", "oldest"]),
    st.sampled_from([None, "a"]),
    st.sampled_from([None, "open", "discarded"]),
    st.integers(1, 50),
    st.tuples(st.none() | st.integers(0, 40), st.none() | st.integers(41, 80)),
)
async def test_pages_together_are_the_whole_list_in_order(made, limit, order, code, state, looked_at, span):
    letters, actions = MemoryLetters(PARTITIONS), MemoryActions()
    expected, at_ms = [], 0
    for number, step, letter_code, is_discarded, marker in made:
        at_ms += step
        if marker:
            letters.mark(PARTITIONS[number])
        place = letters.put(PARTITIONS[number], dead(letter_code), at_ms=at_ms)
        if is_discarded:
            await actions.begin([discarded(place)])
        since, until = span
        if (
            code in (None, letter_code)
            and state in (None, "discarded" if is_discarded else "open")
            and (since is None or at_ms >= since)
            and (until is None or at_ms < until)
        ):
            expected.append((at_ms, place))
    wanted = LetterFilter(code=code, state=state, since_ms=span[0], until_ms=span[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_BLOCK", 3)
        found = await all_pages(wanted, letters, actions, order, limit, looked_at_max=looked_at)
    assert sorted(found) == sorted(place for _, place in expected), "each once"
    times = {place: at for at, place in expected}
    # Pages that were ended by the bound may be out of step with each other, but never within a partition.
    for partition in PARTITIONS:
        own = [place.offset for place in found if (place.topic, place.partition) == partition]
        assert own == sorted(own, reverse=order == "newest")
    if looked_at == 50 and not made[50:]:
        assert [times[place] for place in found] == sorted(times.values(), reverse=order == "newest")


async def test_a_page_reads_little_of_a_long_topic():
    letters = MemoryLetters(PARTITIONS)
    for number in range(30_000):
        letters.put(PARTITIONS[number % 3], dead(), at_ms=number)
    page = await list_letters(LetterFilter(), letters=letters, actions=MemoryActions(), limit=50)
    assert [found.head.at_ms for found in page.letters] == list(range(29_999, 29_949, -1))
    assert letters.reads <= 1_500
    letters.reads = 0
    since = LetterFilter(since_ms=29_000)
    page = await list_letters(since, letters=letters, actions=MemoryActions(), limit=5, order="oldest")
    assert [found.head.at_ms for found in page.letters] == list(range(29_000, 29_005))
    assert letters.reads <= 1_500


async def test_a_page_ends_when_enough_was_looked_at_in_vain():
    letters = MemoryLetters(PARTITIONS)
    for number in range(30_000):
        letters.put(PARTITIONS[0], dead(), at_ms=number)
    rare = letters.put(PARTITIONS[0], dead("rare"), at_ms=30_000)
    wanted = LetterFilter(code="rare")
    page = await list_letters(wanted, letters=letters, actions=MemoryActions(), order="oldest", limit=5)
    assert not page.letters
    assert page.cursor is not None
    assert 20_000 <= page.looked_at <= 21_000
    page = await list_letters(
        wanted, letters=letters, actions=MemoryActions(), order="oldest", limit=5, cursor=page.cursor
    )
    assert [found.head.place for found in page.letters] == [rare]


@pytest.mark.parametrize("cursor", ["", "?", "AAAA", "é", "kw"])
async def test_what_is_no_cursor_is_refused(cursor: str):
    letters = MemoryLetters(PARTITIONS)
    if not cursor:
        assert (
            await list_letters(LetterFilter(), letters=letters, actions=MemoryActions(), cursor=cursor)
        ).cursor is None
        return
    with pytest.raises(InvalidInputError, match="invalid_cursor"):
        await list_letters(LetterFilter(), letters=letters, actions=MemoryActions(), cursor=cursor)


async def test_a_cursor_belongs_to_its_list():
    letters = MemoryLetters(PARTITIONS)
    for number in range(9):
        letters.put(PARTITIONS[0], dead(), at_ms=number)
    page = await list_letters(LetterFilter(), letters=letters, actions=MemoryActions(), limit=2)
    for wanted, order in ((LetterFilter(code="a"), "newest"), (LetterFilter(), "oldest")):
        with pytest.raises(InvalidInputError, match="cursor_of_another_list"):
            await list_letters(wanted, letters=letters, actions=MemoryActions(), order=order, cursor=page.cursor)
