"""What reconciliation knows so far, in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from core.errors import UnavailableError
from metering.reconcile.domain.gap import Cell, Gap, Side, Subject
from metering.reconcile.ports import Outcomes, Pending, RunSummary, StoredGap, TrailMark
from runtime.postgres import Connection, Pool

_ADVANCE = (
    "INSERT INTO reconciliation_progress AS progress (source_partition, next_journal, last_source, received, accepted,"
    " duplicates, rejected, misplaced) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT (source_partition) DO UPDATE SET next_journal = excluded.next_journal,"
    " last_source = excluded.last_source, received = progress.received + excluded.received,"
    " accepted = progress.accepted + excluded.accepted, duplicates = progress.duplicates + excluded.duplicates,"
    " rejected = progress.rejected + excluded.rejected, misplaced = progress.misplaced + excluded.misplaced"
)
_TOUCH = (
    "INSERT INTO reconciliation_pending AS pending (tenant_id, hour, version, first_touched_at, touched_at)"
    " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (tenant_id, hour) DO UPDATE"
    " SET version = greatest(pending.version, excluded.version), touched_at = excluded.touched_at"
)
_DUE = (
    "SELECT tenant_id, hour, touched_at FROM reconciliation_pending"
    " WHERE touched_at <= %s OR coalesce(checked_at, first_touched_at) <= %s"
    " ORDER BY coalesce(checked_at, first_touched_at), tenant_id, hour LIMIT %s"
)
_RECORD = (
    "INSERT INTO reconciliation_gaps AS gap (gap_id, check_name, tenant_id, meter_id, dimensions, span,"
    " source_partition, expected_quantity, found_quantity, expected_events, found_events, found_at, seen_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT (gap_id) DO UPDATE SET expected_quantity = excluded.expected_quantity,"
    " found_quantity = excluded.found_quantity, expected_events = excluded.expected_events,"
    " found_events = excluded.found_events, seen_at = excluded.seen_at,"
    # One that comes back is a new one under its old name.
    " found_at = CASE WHEN gap.closed_at IS NULL THEN gap.found_at ELSE excluded.found_at END,"
    " repair = CASE WHEN gap.closed_at IS NULL THEN gap.repair ELSE '' END, closed_at = NULL"
)


class PostgresFindings:
    """Implements `Findings`."""

    def __init__(self, pool: Pool, *, wait_seconds: float = 5.0) -> None:
        self._pool, self._wait_seconds = pool, wait_seconds

    async def marks(self) -> dict[int, TrailMark]:
        """Return up to where each partition was compared."""
        async with self._connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT source_partition, next_journal, last_source FROM reconciliation_progress"
                )
            ).fetchall()
        return {
            row["source_partition"]: TrailMark(row["source_partition"], row["next_journal"], row["last_source"])
            for row in rows
        }

    async def advance(
        self, mark: TrailMark, outcomes: Outcomes, touched: Mapping[Cell, int], gaps: Sequence[Gap], now: datetime
    ) -> None:
        """Go on, in one transaction."""
        sums = (
            outcomes.received,
            outcomes.accepted,
            outcomes.duplicates,
            outcomes.rejected,
            outcomes.misplaced,
        )
        cells = [(cell.tenant, _instant(cell.hour), version, now, now) for cell, version in sorted(touched.items())]
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(_ADVANCE, (mark.partition, mark.next_journal, mark.last_source, *sums))
            await cursor.executemany(_TOUCH, cells)
            await cursor.executemany(_RECORD, [_gap_row(gap, now) for gap in gaps])

    async def outcomes(self) -> dict[int, Outcomes]:
        """Return the sums by partition."""
        async with self._connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT source_partition, received, accepted, duplicates, rejected, misplaced"
                    " FROM reconciliation_progress"
                )
            ).fetchall()
        return {row.pop("source_partition"): Outcomes(**row) for row in rows}

    async def due(self, now: datetime, quiet_seconds: float, longest_seconds: float, most: int) -> list[Pending]:
        """Return cells to compare."""
        bounds = (now - timedelta(seconds=quiet_seconds), now - timedelta(seconds=longest_seconds), most)
        async with self._connection() as connection:
            rows = await (await connection.execute(_DUE, bounds)).fetchall()
        return [Pending(Cell(row["tenant_id"], int(row["hour"].timestamp())), row["touched_at"]) for row in rows]

    async def settle(self, compared: Sequence[Pending], left: Sequence[Pending], now: datetime) -> None:
        """Forget cells that were compared and not touched since; mark the others as looked at."""
        gone = [(one.cell.tenant, _instant(one.cell.hour), one.touched_at) for one in compared]
        seen = [(now, one.cell.tenant, _instant(one.cell.hour)) for one in (*left, *compared)]
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(
                "DELETE FROM reconciliation_pending WHERE tenant_id = %s AND hour = %s AND touched_at = %s", gone
            )
            await cursor.executemany(
                "UPDATE reconciliation_pending SET checked_at = %s WHERE tenant_id = %s AND hour = %s", seen
            )

    async def record(self, gaps: Sequence[Gap], now: datetime) -> None:
        """Write confirmed gaps down."""
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(_RECORD, [_gap_row(gap, now) for gap in gaps])

    async def close(self, gap_ids: Collection[str], now: datetime) -> None:
        """Close gaps."""
        async with self._connection() as connection:
            await connection.execute(
                "UPDATE reconciliation_gaps SET closed_at = %s WHERE gap_id = ANY(%s) AND closed_at IS NULL",
                (now, list(gap_ids)),
            )

    async def note_repair(self, gap_ids: Collection[str], repair: str) -> None:
        """Say what was done about gaps."""
        async with self._connection() as connection:
            await connection.execute(
                "UPDATE reconciliation_gaps SET repair = %s WHERE gap_id = ANY(%s)", (repair, list(gap_ids))
            )

    async def open_gaps(self) -> list[StoredGap]:
        """Return the open gaps."""
        async with self._connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT * FROM reconciliation_gaps WHERE closed_at IS NULL"
                    " ORDER BY check_name, tenant_id, meter_id, span, dimensions"
                )
            ).fetchall()
        return [_stored(row) for row in rows]

    async def add_run(self, run: RunSummary) -> None:
        """Write a run down."""
        async with self._connection() as connection:
            await connection.execute(
                "INSERT INTO reconciliation_runs (run_id, scope, started_at, finished_at, checked, unsettled, gaps)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (run.run_id, run.scope, run.started_at, run.finished_at, run.checked, run.unsettled, run.gaps),
            )
            await connection.execute(
                "DELETE FROM reconciliation_runs WHERE finished_at < %s", (run.finished_at - timedelta(days=30),)
            )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection(timeout=self._wait_seconds) as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise UnavailableError("PostgreSQL does not answer now") from error


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _gap_row(gap: Gap, now: datetime) -> tuple[Any, ...]:
    subject = gap.subject
    return (
        subject.gap_id, subject.check, subject.tenant, subject.meter, list(subject.dimensions), subject.span,
        subject.partition, gap.expected.quantity, gap.found.quantity, gap.expected.events, gap.found.events, now, now,
    )  # fmt: skip


def _stored(row: Mapping[str, Any]) -> StoredGap:
    subject = Subject(
        row["check_name"],
        row["tenant_id"],
        row["meter_id"],
        tuple(row["dimensions"]),
        row["span"],
        row["source_partition"],
    )
    gap = Gap(
        subject,
        Side(row["expected_quantity"], row["expected_events"]),
        Side(row["found_quantity"], row["found_events"]),
    )
    return StoredGap(gap, row["found_at"], row["seen_at"], row["closed_at"], row["repair"])
