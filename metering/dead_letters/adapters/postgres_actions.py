"""What became of dead letters, and how many there are, in PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from core.errors import UnavailableError
from metering.dead_letters.domain.letter import Action, Place
from metering.dead_letters.ports import CodeCount, Partition
from runtime.postgres import Connection, Pool

_FIND = (
    "SELECT * FROM dead_letter_actions WHERE topic = %s AND partition = %s AND letter_offset = ANY(%s)"
    " ORDER BY begun_at, action_id"
)
_BEGIN = (
    "INSERT INTO dead_letter_actions (action_id, topic, partition, letter_offset, kind, code, letter_at, actor, reason,"
    " letter_sha256, sent_sha256, begun_at, done_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_FINISH = (
    "UPDATE dead_letter_actions SET sent_topic = %s, sent_partition = %s, sent_offset = %s, done_at = %s"
    " WHERE action_id = %s AND done_at IS NULL"
)
_ADD = (
    "INSERT INTO dead_letter_tallies AS tally (topic, partition, code, day, letters) VALUES (%s, %s, %s, %s, %s)"
    " ON CONFLICT (topic, partition, code, day) DO UPDATE SET letters = tally.letters + excluded.letters"
)
# A letter is finished by its first finished action; those not counted yet must not be subtracted.
_COUNTS = """
WITH kept (topic, day) AS (SELECT * FROM unnest(%(topics)s::text[], %(days)s::date[])),
counted AS (
    SELECT topic, code, sum(letters)::bigint AS letters
    FROM dead_letter_tallies JOIN kept USING (topic) WHERE dead_letter_tallies.day >= kept.day GROUP BY topic, code
),
finished AS (
    SELECT topic, code, count(DISTINCT (partition, letter_offset)) AS letters
    FROM dead_letter_actions JOIN kept USING (topic) JOIN dead_letter_tally_progress USING (topic, partition)
    WHERE done_at IS NOT NULL AND letter_offset < next_offset
      AND (letter_at AT TIME ZONE 'UTC')::date >= kept.day
    GROUP BY topic, code
)
SELECT topic, code, counted.letters, counted.letters - coalesce(finished.letters, 0) AS open
FROM counted LEFT JOIN finished USING (topic, code) ORDER BY topic, code
"""


class PostgresLetters:
    """Implements `LetterActions` and `LetterTallies`."""

    def __init__(self, pool: Pool, *, wait_seconds: float = 5.0) -> None:
        self._pool, self._wait_seconds = pool, wait_seconds

    async def find(self, places: Sequence[Place]) -> dict[Place, tuple[Action, ...]]:
        """Return the actions of letters that have any."""
        offsets: dict[Partition, list[int]] = defaultdict(list)
        for place in places:
            offsets[place.topic, place.partition].append(place.offset)
        found: dict[Place, list[Action]] = defaultdict(list)
        async with self._connection() as connection:
            for (topic, partition), wanted in offsets.items():
                for row in await (await connection.execute(_FIND, (topic, partition, wanted))).fetchall():
                    found[Place(topic, partition, row["letter_offset"])].append(_action(row))
        return {place: tuple(actions) for place, actions in found.items()}

    async def begin(self, actions: Sequence[Action]) -> None:
        """Write actions down in one transaction."""
        rows = [
            (
                action.action_id, *_parts(action.place), action.kind, action.code, _instant(action.letter_at_ms),
                action.actor, action.reason, action.letter_digest, action.sent_digest, action.begun_at, action.done_at,
            )
            for action in actions
        ]  # fmt: skip
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(_BEGIN, rows)

    async def finish(self, sent: Mapping[str, Place], done_at: datetime) -> None:
        """Mark replays as done in one transaction."""
        rows = [(*_parts(place), done_at, action_id) for action_id, place in sent.items()]
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(_FINISH, rows)

    async def progress(self) -> dict[Partition, int]:
        """Return up to where letters were counted."""
        async with self._connection() as connection:
            found = await connection.execute("SELECT topic, partition, next_offset FROM dead_letter_tally_progress")
            return {(row["topic"], row["partition"]): row["next_offset"] for row in await found.fetchall()}

    async def add(
        self, partition: Partition, expected: int, next_offset: int, letters: Mapping[tuple[str, date], int]
    ) -> bool:
        """Add counts, unless somebody else has gone on from `expected`."""
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(
                "INSERT INTO dead_letter_tally_progress (topic, partition, next_offset) VALUES (%s, %s, 0)"
                " ON CONFLICT DO NOTHING",
                partition,
            )
            await cursor.execute(
                "UPDATE dead_letter_tally_progress SET next_offset = %s"
                " WHERE topic = %s AND partition = %s AND next_offset = %s",
                (next_offset, *partition, expected),
            )
            if cursor.rowcount != 1:
                return False
            await cursor.executemany(_ADD, [(*partition, code, day, n) for (code, day), n in sorted(letters.items())])
            return True

    async def start_over(self, partition: Partition, next_offset: int) -> None:
        """Forget a partition's counts."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute("DELETE FROM dead_letter_tallies WHERE topic = %s AND partition = %s", partition)
            await connection.execute(
                "UPDATE dead_letter_tally_progress SET next_offset = %s WHERE topic = %s AND partition = %s",
                (next_offset, *partition),
            )

    async def counts(self, kept_since: Mapping[str, date | None]) -> list[CodeCount]:
        """Return counts by topic and code."""
        days = [day or date(1970, 1, 1) for day in kept_since.values()]
        async with self._connection() as connection:
            rows = await (await connection.execute(_COUNTS, {"topics": list(kept_since), "days": days})).fetchall()
        return [CodeCount(**row) for row in rows]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection(timeout=self._wait_seconds) as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise UnavailableError("PostgreSQL does not answer now") from error


def _parts(place: Place) -> tuple[str, int, int]:
    return place.topic, place.partition, place.offset


def _instant(at_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)


def _action(row: Mapping[str, Any]) -> Action:
    sent = row["sent_offset"]
    return Action(
        action_id=str(row["action_id"]),
        place=Place(row["topic"], row["partition"], row["letter_offset"]),
        kind=row["kind"],
        code=row["code"],
        letter_at_ms=(row["letter_at"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1),
        actor=row["actor"],
        reason=row["reason"],
        letter_digest=row["letter_sha256"],
        sent_digest=row["sent_sha256"],
        sent=None if sent is None else Place(row["sent_topic"], row["sent_partition"], sent),
        begun_at=row["begun_at"],
        done_at=row["done_at"],
    )
