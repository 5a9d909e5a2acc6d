"""Dead-letter topics, their actions and a broker, in memory; and letters to put there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from core.dead_letter import DeadLetter
from metering.dead_letters.domain.letter import Action, Letter, LetterHead, Place, head_of, read_letter
from metering.dead_letters.domain.replay import Replay
from metering.dead_letters.ports import CodeCount, Partition


def dead(code: str = "unknown_meter", **changes: Any) -> DeadLetter:
    letter = DeadLetter(
        code, "no meter counts this", "usage.events", 1, 17, -1, 1_790_000_000_000, b'{"subject":"acme/c1","id":"e1"}'
    )
    return replace(letter, **changes)


class MemoryLetters:
    """Partitions as lists; an offset without a letter is a transaction's marker."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self.records: dict[Partition, list[Letter | None]] = {partition: [] for partition in partitions}
        self.first: dict[Partition, int] = defaultdict(int)
        self.reads = 0

    def put(self, partition: Partition, letter: DeadLetter, *, at_ms: int = 0, key: bytes | None = None) -> Place:
        place = Place(*partition, len(self.records[partition]))
        headers = [*letter.headers(), ("traceparent", b"00-1")]
        self.records[partition].append(read_letter(place, at_ms, key, letter.body, headers))
        return place

    def mark(self, partition: Partition) -> None:
        self.records[partition].append(None)

    async def bounds(self, topics: Sequence[str]) -> dict[Partition, tuple[int, int]]:
        return {key: (self.first[key], len(found)) for key, found in self.records.items() if key[0] in topics}

    async def offsets_at(self, partitions: Sequence[Partition], instant_ms: int) -> dict[Partition, int]:
        return {
            partition: next(
                (n for n, letter in enumerate(self.records[partition]) if letter and letter.at_ms >= instant_ms),
                len(self.records[partition]),
            )
            for partition in partitions
        }

    async def heads(self, partition: Partition, first: int, end: int) -> list[LetterHead]:
        found = [head_of(letter) for letter in self.records[partition][first:end] if letter is not None]
        self.reads += len(found)
        return found

    async def load(self, places: Sequence[Place], bytes_max: int) -> list[Letter]:
        found: list[Letter] = []
        for place in sorted(places):
            records = self.records.get((place.topic, place.partition), [])
            letter = records[place.offset] if place.offset < len(records) else None
            if letter is not None:
                found.append(letter)
            if sum(len(letter.body or b"") for letter in found) >= bytes_max:
                break
        return found


class MemoryActions:
    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}
        self.tallies: Counter[tuple[Partition, str, date]] = Counter()
        self.next: dict[Partition, int] = {}

    async def find(self, places: Sequence[Place]) -> dict[Place, tuple[Action, ...]]:
        found: dict[Place, tuple[Action, ...]] = {}
        for action in sorted(self.actions.values(), key=lambda action: (action.begun_at, action.action_id)):
            if action.place in places:
                found[action.place] = (*found.get(action.place, ()), action)
        return found

    async def begin(self, actions: Sequence[Action]) -> None:
        self.actions |= {action.action_id: action for action in actions}

    async def finish(self, sent: Mapping[str, Place], done_at: datetime) -> None:
        for action_id, place in sent.items():
            if self.actions[action_id].done_at is None:
                self.actions[action_id] = replace(self.actions[action_id], sent=place, done_at=done_at)

    async def progress(self) -> dict[Partition, int]:
        return dict(self.next)

    async def add(
        self, partition: Partition, expected: int, next_offset: int, letters: Mapping[tuple[str, date], int]
    ) -> bool:
        if self.next.get(partition, 0) != expected:
            return False
        self.next[partition] = next_offset
        for (code, day), count in letters.items():
            self.tallies[partition, code, day] += count
        return True

    async def start_over(self, partition: Partition, next_offset: int) -> None:
        self.next[partition] = next_offset
        for key in [key for key in self.tallies if key[0] == partition]:
            del self.tallies[key]

    async def counts(self, kept_since: Mapping[str, date | None]) -> list[CodeCount]:
        counted: Counter[tuple[str, str]] = Counter()
        for ((topic, _), code, day), count in self.tallies.items():
            if topic in kept_since and day >= (kept_since[topic] or date.min):
                counted[topic, code] += count
        finished = {
            (action.place, action.code)
            for action in self.actions.values()
            if action.done_at is not None
            and action.place.offset < self.next.get((action.place.topic, action.place.partition), 0)
            and datetime.fromtimestamp(action.letter_at_ms / 1000, action.done_at.tzinfo).date()
            >= (kept_since[action.place.topic] or date.min)
        }
        settled = Counter((place.topic, code) for place, code in finished)
        return [CodeCount(*key, n, n - settled[key]) for key, n in sorted(counted.items())]


class MemorySender:
    """Appends replays; `refusals` says of how many the broker confirms none."""

    def __init__(self) -> None:
        self.sent: list[Replay] = []
        self.refusals = 0
        self.failure: BaseException | None = None

    async def send(self, replays: Sequence[Replay]) -> list[Place | str]:
        if self.failure is not None:
            raise self.failure
        if self.refusals:
            self.refusals -= 1
            return ["the broker did not confirm"] * len(replays)
        first = len(self.sent)
        self.sent += replays
        return [Place(replay.topic, replay.partition or 0, first + n) for n, replay in enumerate(replays)]
