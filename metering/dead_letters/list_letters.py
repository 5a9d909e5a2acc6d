"""List letters page by page. Owns that a page costs a bounded number of reads, however many letters there are."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from metering.dead_letters.domain.cursor import Bounds, read_cursor, write_cursor
from metering.dead_letters.domain.letter import FoundLetter
from metering.dead_letters.domain.letter_filter import LetterFilter, Order
from metering.dead_letters.ports import LetterActions, Letters, Partition

# A page ends after so many letters were looked at, whatever it found; its cursor goes on from there.
LOOKED_AT_MAX = 20_000
_BLOCK = 500
# Producers' clocks may differ by this much, so a letter of an earlier instant may stand behind one of a later.
_CLOCKS_APART_MS = 600_000


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Letters found, and where to go on (None: there are no more). `looked_at` letters were read for it."""

    letters: tuple[FoundLetter, ...]
    cursor: str | None
    looked_at: int


@dataclass(slots=True)
class _Lane:
    """What is still to be looked at of one partition: [low, high), and what was read ahead of it."""

    partition: Partition
    low: int
    high: int
    ahead: deque[FoundLetter] = field(default_factory=deque)
    # The bound once `ahead` is used up, and when the last letter looked at was put aside.
    beyond: int = 0
    reached_ms: int | None = None

    @property
    def is_done(self) -> bool:
        return not self.ahead and self.low >= self.high


async def list_letters(
    wanted: LetterFilter,
    *,
    letters: Letters,
    actions: LetterActions,
    order: Order = "newest",
    limit: int = 50,
    cursor: str | None = None,
    looked_at_max: int = LOOKED_AT_MAX,
) -> LetterPage:
    """Return up to `limit` letters, partitions merged by the time the letters were put aside.

    Raises `InvalidInputError` for a cursor of another list, `UnavailableError`.
    """
    newest = order == "newest"
    lanes = await _open_lanes(wanted, letters, read_cursor(cursor, wanted, order) if cursor else {}, newest)
    found: list[FoundLetter] = []
    # One block of each, so that every page brings the list on.
    looked_at = sum([await _read_ahead(lane, wanted, letters, actions, newest) for lane in lanes if not lane.is_done])
    while len(found) < limit:
        waiting = [lane for lane in lanes if lane.ahead]
        best = min(waiting, key=lambda lane: _turn(lane, newest)) if waiting else None
        # Lanes that may still hold a letter that comes before the best one found so far.
        behind = [lane for lane in lanes if not lane.ahead and not lane.is_done]
        if best is not None:
            behind = [lane for lane in behind if _turn(lane, newest) < _turn(best, newest)]
        if behind:
            if looked_at >= looked_at_max:
                break
            farthest_back = min(behind, key=lambda lane: _turn(lane, newest))
            looked_at += await _read_ahead(farthest_back, wanted, letters, actions, newest)
            continue
        if best is None:
            break
        letter = best.ahead.popleft()
        found.append(letter)
        _move(best, letter.head.place.offset + (0 if newest else 1), newest)
        if not best.ahead:
            _move(best, best.beyond, newest)
    rest: Bounds = {lane.partition: lane.high if newest else lane.low for lane in lanes}
    ended = all(lane.is_done for lane in lanes)
    return LetterPage(tuple(found), None if ended else write_cursor(wanted, order, rest), looked_at)


async def _open_lanes(wanted: LetterFilter, letters: Letters, bounds: Bounds, newest: bool) -> list[_Lane]:
    ranges = await letters.bounds(wanted.topics)
    partitions = sorted(ranges)
    since, until = wanted.since_ms, wanted.until_ms
    lows = await letters.offsets_at(partitions, since) if since is not None else {}
    highs = await letters.offsets_at(partitions, until + _CLOCKS_APART_MS) if until is not None else {}
    lanes = []
    for partition in partitions:
        first, end = ranges[partition]
        low, high = max(first, lows.get(partition, first)), min(end, highs.get(partition, end))
        if newest:
            high = min(high, bounds.get(partition, high))
        else:
            low = max(low, bounds.get(partition, low))
        lanes.append(_Lane(partition, low, high))
    return lanes


async def _read_ahead(lane: _Lane, wanted: LetterFilter, letters: Letters, actions: LetterActions, newest: bool) -> int:
    """Read the next block of a lane; returns how many letters were looked at (at least 1, so that it always ends)."""
    first, end = (
        (max(lane.low, lane.high - _BLOCK), lane.high) if newest else (lane.low, min(lane.high, lane.low + _BLOCK))
    )
    heads = await letters.heads(lane.partition, first, end)
    if heads:
        lane.reached_ms = heads[0 if newest else -1].at_ms
    meant = [head for head in heads if wanted.wants(head)]
    known = await actions.find([head.place for head in meant]) if meant else {}
    matching = [FoundLetter(head, known.get(head.place, ())) for head in meant]
    if wanted.state is not None:
        matching = [letter for letter in matching if letter.state == wanted.state]
    lane.ahead.extend(reversed(matching) if newest else matching)
    lane.beyond = first if newest else end
    if not lane.ahead:
        _move(lane, lane.beyond, newest)
    return max(1, len(heads))


def _turn(lane: _Lane, newest: bool) -> float:
    """Return a number by which lanes take turns: the time of the next letter, or up to which there is none."""
    at_ms = lane.ahead[0].head.at_ms if lane.ahead else lane.reached_ms
    if at_ms is None:
        return -math.inf
    return -at_ms if newest else at_ms


def _move(lane: _Lane, bound: int, newest: bool) -> None:
    if newest:
        lane.high = bound
    else:
        lane.low = bound
