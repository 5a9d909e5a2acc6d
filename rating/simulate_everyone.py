"""Simulates all tenants chunk by chunk, in several processes if asked: memory stays that of a few chunks.

Chunks are handed out and taken back in the order of tenants, so rows and totals are the same however many processes
there are. A process reads its own chunk from the stores and gives back only its rows as CSV and its sums.
"""

from __future__ import annotations

import asyncio
import csv
import io
import multiprocessing
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from core.csv_text import safe_cell
from core.meters import Meter
from rating.adapters.clickhouse import ClickHouseRating
from rating.adapters.postgres_history import PostgresHistory
from rating.domain.other_prices import Documents, plans_as_sold, plans_under
from rating.domain.plan import Plan, parse_plan
from rating.domain.price_comparison import Comparison, Totals, money, percent
from rating.simulate_prices import Prices, Question, simulate_prices
from runtime.postgres import create_pool
from runtime.settings import Settings

CHUNK = 1_000
COLUMNS = (
    "tenant", "period", "currency", "plans", "new_plans", "billed", "present", "new", "difference", "percent", "note",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """All that a process needs beside its chunks."""

    settings: Settings
    question: Question
    documents: Documents
    meters: Mapping[str, Meter]

    def prices(self) -> Prices:
        """Return both sides' plans."""
        read = partial(_read_plan, meters=self.meters)
        other = plans_under(self.question.other, self.documents, read)
        return Prices(plans_as_sold(self.documents, read), other, self.meters)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a chunk of tenants came to."""

    tenants: int
    csv_rows: str
    totals: Totals


async def simulate_everyone(
    task: Task,
    *,
    only: Sequence[str],
    processes: int,
    write: Callable[[str], object] | None = None,
    progress: Callable[[int], None] = lambda tenants: None,
    chunk: int = CHUNK,
) -> Totals:
    """Return the totals of all tenants (or `only` some), giving rows to `write` in order of tenants and periods."""
    totals = Totals(task.question.top)
    async for done in _chunks(task, only, processes, chunk):
        if write is not None:
            write(done.csv_rows)
        totals.add(done.totals)
        progress(done.tenants)
    return totals


async def _chunks(task: Task, only: Sequence[str], processes: int, chunk: int) -> AsyncIterator[Chunk]:
    async with create_pool(task.settings, max_size=1) as pool:
        history = PostgresHistory(pool)
        parts = _named(only, chunk) if only else _all(history, task, chunk)
        if processes == 1:
            prices = task.prices()
            async for tenant_ids in parts:
                yield await _simulate(task, prices, tenant_ids)
            return
        # A fresh interpreter: what forks carries this one's event loop and connections along.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(task,)) as workers:
            running: deque[Future[Chunk]] = deque()
            try:
                async for tenant_ids in parts:
                    running.append(workers.submit(_work, tenant_ids))
                    if len(running) > 2 * processes:
                        yield await asyncio.wrap_future(running.popleft())
                while running:
                    yield await asyncio.wrap_future(running.popleft())
            finally:
                for waiting in running:
                    waiting.cancel()


async def _named(tenant_ids: Sequence[str], chunk: int) -> AsyncIterator[list[str]]:
    ordered = sorted(set(tenant_ids))
    for start in range(0, len(ordered), chunk):
        yield ordered[start : start + chunk]


async def _all(history: PostgresHistory, task: Task, chunk: int) -> AsyncIterator[list[str]]:
    after = ""
    while found := await history.tenants(task.question.span, after, chunk):
        yield found
        after = found[-1]


async def _simulate(task: Task, prices: Prices, tenant_ids: list[str]) -> Chunk:
    usage = ClickHouseRating(task.settings)
    try:
        async with create_pool(task.settings, max_size=1) as pool:
            rows, totals = await simulate_prices(
                tenant_ids, task.question, history=PostgresHistory(pool), usage=usage, prices=prices
            )
    finally:
        await usage.close()
    return Chunk(len(tenant_ids), csv_text(rows), totals)


_task: Task | None = None
_prices: Prices | None = None


def _begin(task: Task) -> None:
    global _task, _prices
    _task, _prices = task, task.prices()


def _work(tenant_ids: list[str]) -> Chunk:
    assert _task is not None
    assert _prices is not None
    return asyncio.run(_simulate(_task, _prices, tenant_ids))


def csv_header() -> str:
    """Return the first row."""
    return _csv([COLUMNS])


def csv_text(rows: Iterable[Comparison]) -> str:
    """Return rows as CSV; texts are safe in a spreadsheet, amounts stay numbers there."""
    return _csv(
        (
            safe_cell(row.tenant_id),
            row.period,
            row.currency,
            safe_cell(row.plans),
            safe_cell(row.new_plans),
            "" if row.billed is None else money(row.billed, row.currency),
            *(("", "", "", "") if row.note else _amounts(row)),
            safe_cell(row.note),
        )
        for row in rows
    )


def _amounts(row: Comparison) -> tuple[str, str, str, str]:
    amounts = (row.present, row.new, row.difference)
    present, new, difference = (money(amount, row.currency) for amount in amounts)
    return present, new, difference, _text(percent(row.difference, row.present))


def _csv(rows: Iterable[Sequence[str]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


def _text(number: Decimal | None) -> str:
    return "" if number is None else f"{number:f}"


def _read_plan(plan_id: str, document: Mapping[str, Any], *, meters: Mapping[str, Meter]) -> Plan:
    return parse_plan(plan_id, document, meters)
