"""Runs reconciliation as a consumer, and opens it for the command: here it meets the stages that it repairs with."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import structlog
from prometheus_client import Counter

from core.clock import SystemClock
from core.errors import UnavailableError
from core.journal import JournalEntry
from metering.dead_letters.desk import open_desk
from metering.reconcile.adapters.clickhouse_views import ClickHouseViews
from metering.reconcile.adapters.kafka_trail import KafkaTrail
from metering.reconcile.adapters.postgres_findings import PostgresFindings
from metering.reconcile.adapters.redis_live import RedisLive
from metering.reconcile.command import Reconciler
from metering.reconcile.metrics import observe_letters, observe_run
from metering.reconcile.reconcile import Views, reconcile_lately
from runtime.postgres import Pool, create_pool
from runtime.registry import RegistryCache
from runtime.settings import Settings
from streams.adapters.clickhouse_warehouse import ClickHouseWarehouse
from streams.adapters.kafka_journal import partition_of_key
from streams.adapters.source_reader import SourceReader
from streams.domain.warehouse_rows import Rows, event_rows, journal_rows, source_range

log = structlog.get_logger()
FAILED = Counter("meterbook_reconciliation_failed_total", "Runs that a store cut short")
# One at a time: two would compare the same, and count what they compare twice.
_ADVISORY_LOCK = 7_410_222


class WarehouseRerun:
    """Implements `metering.reconcile.ports.Rerun` with the warehouse agent's own rows; reports no progress."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._warehouse = ClickHouseWarehouse(settings)
        self._sources: dict[int, SourceReader] = {}

    async def run(self, partition: int, entries: Sequence[tuple[int, JournalEntry]]) -> None:
        """Write all rows of these entries, in the agent's order."""
        if partition not in self._sources:
            self._sources[partition] = SourceReader(self._settings.kafka_bootstrap, partition)
            await self._sources[partition].start()
        rows: dict[str, Rows] = {"usage_events": []}
        for version, entry in entries:
            covered = source_range(partition, entry)
            async for record in self._sources[partition].read(covered.first, covered.last):
                rows["usage_events"] += event_rows(covered, record)
            for table, found in journal_rows(partition, version, entry).items():
                rows.setdefault(table, []).extend(found)
        for table, found in rows.items():
            await self._warehouse.insert(table, found)

    async def close(self) -> None:
        """Disconnect."""
        for source in self._sources.values():
            await source.stop()
        await self._warehouse.close()


@asynccontextmanager
async def open_reconciler(settings: Settings) -> AsyncIterator[Reconciler]:
    """Open everything the command needs; waits while another reconciliation runs."""
    async with create_pool(settings, max_size=3) as pool, open_views(settings, pool) as views:
        registry = (await _registry(settings, pool).get()).registry
        rerun = WarehouseRerun(settings)
        try:
            async with _alone(pool, wait=True):
                yield Reconciler(views, registry, rerun)
        finally:
            await rerun.close()


@asynccontextmanager
async def open_views(settings: Settings, pool: Pool) -> AsyncIterator[Views]:
    """Open the views on the settings' engines."""
    async with AsyncExitStack() as stack:
        trail, warehouse, live = KafkaTrail(settings), ClickHouseViews(settings), RedisLive(settings)
        for view in (trail, warehouse, live):
            stack.push_async_callback(view.close)
        partitions = settings.usage_partitions
        yield Views(
            trail=trail,
            warehouse=warehouse,
            live=live,
            findings=PostgresFindings(pool),
            partitions=partitions,
            partition_of=lambda tenant: partition_of_key(tenant.encode(), partitions),
            clock=SystemClock(),
            make_id=lambda: str(uuid4()),
            make_seed=lambda: random.getrandbits(32),
        )


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Reconcile every `reconcile_seconds` until `stop` is set; an outage ends a run, not the worker."""
    async with (
        create_pool(settings, max_size=4) as pool,
        open_views(settings, pool) as views,
        open_desk(settings, pool) as desk,
    ):
        cache = _registry(settings, pool)
        while not stop.is_set():
            try:
                async with _alone(pool, wait=False) as is_ours:
                    if is_ours:
                        registry = (await cache.get()).registry
                        report = await reconcile_lately(views, registry, budget_seconds=settings.reconcile_seconds)
                        observe_run(report)
                        log.info(
                            "reconciliation.done",
                            checked=report.summary.checked,
                            unsettled=report.summary.unsettled,
                            gaps=report.summary.gaps,
                        )
                        counts, _ = await desk.counts(looked_at_max=100_000)
                        observe_letters(counts)
            except UnavailableError as error:
                FAILED.inc()
                log.warning("reconciliation.cut_short", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), settings.reconcile_seconds)


@asynccontextmanager
async def _alone(pool: Pool, *, wait: bool) -> AsyncIterator[bool]:
    """Give whether this is the only reconciliation, and keep it so; with `wait`, after the others have ended."""
    async with pool.connection() as connection:
        # Autocommit: the lock belongs to the session, and no transaction stays open beside it.
        await connection.set_autocommit(True)
        try:
            while True:
                found = await connection.execute("SELECT pg_try_advisory_lock(%s) AS ours", (_ADVISORY_LOCK,))
                row = await found.fetchone()
                is_ours = bool(row and row["ours"])
                if is_ours or not wait:
                    break
                await asyncio.sleep(0.5)
            try:
                yield is_ours
            finally:
                if is_ours:
                    await connection.execute("SELECT pg_advisory_unlock(%s)", (_ADVISORY_LOCK,))
        finally:
            await connection.set_autocommit(False)


def _registry(settings: Settings, pool: Pool) -> RegistryCache:
    return RegistryCache(pool, SystemClock(), refresh_seconds=settings.registry_refresh_seconds)
