"""The running cost is what the invoice would say now, absolute, and only of what the warehouse has stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiokafka import TopicPartition

from core.journal import FORMAT, JournalEntry, SampleRow, WindowRow, encode_entry
from core.period import Period, parse_month
from rating.adapters.kafka import Touched, read_touched
from rating.consumer import Pending
from rating.domain.term import Term
from rating.domain.usage import UsageRow, usage_row
from rating.ports import CostRow, HeldPlan
from rating.rate_charges import rate
from rating.rate_open_periods import rate_open_periods
from tests.rating.plans import OCTOBER, TIERS

NOW = datetime(2026, 10, 15, 12, tzinfo=UTC)
NOVEMBER = parse_month("2026-11")


class Plans:
    def __init__(self, *held: HeldPlan) -> None:
        self._held = held

    async def held(self, tenant_ids: Sequence[str], period: Period) -> list[HeldPlan]:
        return [plan for plan in self._held if plan.tenant_id in tenant_ids and plan.term.within(period)]


class Usage:
    def __init__(self, rows: Mapping[str, Sequence[UsageRow]]) -> None:
        self._rows, self.asked = rows, list[tuple[tuple[str, ...], Period]]()

    async def usage(self, tenant_ids: Sequence[str], window: Period, **_: Any) -> Mapping[str, Sequence[UsageRow]]:
        self.asked.append((tuple(tenant_ids), window))
        return {tenant: self._rows[tenant] for tenant in tenant_ids if tenant in self._rows}


class Sink:
    def __init__(self) -> None:
        self.rows: list[CostRow] = []

    async def put(self, rows: Sequence[CostRow]) -> None:
        self.rows += rows


def held(tenant: str, tier: str, term: Term | None = None) -> HeldPlan:
    return HeldPlan(tenant, TIERS[tier], term or Term(parse_month("2026-01").start))


USED = [
    usage_row("agent_executions", 120_000),
    usage_row("llm_input_tokens", 500_000, {"model": "gpt4"}),
    usage_row("llm_input_tokens", 500_000, {"model": "claude"}),
]


async def test_rows_are_summed_by_charge_and_meter() -> None:
    sink = Sink()
    plans, usage = Plans(held("acme", "lite")), Usage({"acme": USED})
    assert await rate_open_periods([("acme", OCTOBER)], plans=plans, usage=usage, sink=sink, now=NOW) == 3
    assert [(row.charge_id, row.meter_id, str(row.quantity), str(row.amount)) for row in sink.rows] == [
        ("base", "", "1", "99.00"),
        ("agent_executions", "agent_executions", "120000", "10.00"),  # 20,000 × 0.0005
        ("llm_input_tokens", "llm_input_tokens", "1000000", "27.50"),  # 15.00 + 12.50
    ]
    assert {(row.period, row.version) for row in sink.rows} == {("2026-10", 1_792_065_600_000)}


async def test_the_running_cost_is_the_sum_of_the_invoices_lines() -> None:
    sink = Sink()
    plan = held("acme", "enterprise")
    await rate_open_periods([("acme", OCTOBER)], plans=Plans(plan), usage=Usage({"acme": USED}), sink=sink, now=NOW)
    invoice = rate(plan.plan, USED, OCTOBER, plan.term)
    assert sum((row.amount for row in sink.rows), Decimal(0)) == invoice.total


async def test_usage_is_read_once_per_window_and_month() -> None:
    late = Term(OCTOBER.start.replace(day=5))
    plans = Plans(held("a", "shared"), held("b", "shared"), held("c", "shared", late))
    usage, sink = Usage({}), Sink()
    touched = [("a", OCTOBER), ("b", OCTOBER), ("c", OCTOBER), ("a", OCTOBER), ("a", NOVEMBER), ("nobody", OCTOBER)]
    assert await rate_open_periods(touched, plans=plans, usage=usage, sink=sink, now=NOW) == 0
    assert usage.asked == [
        (("a", "b"), OCTOBER),
        (("c",), Period(late.started_at, OCTOBER.end)),
        (("a",), NOVEMBER),
    ]
    assert sink.rows == []


async def test_two_plans_held_in_one_month_add_up() -> None:
    cut = OCTOBER.start.replace(day=11)
    first, second = Term(parse_month("2026-01").start, cut), Term(cut)
    plans = Plans(held("acme", "lite", first), held("acme", "lite", second))
    sink = Sink()
    await rate_open_periods([("acme", OCTOBER)], plans=plans, usage=Usage({}), sink=sink, now=NOW)
    # 99 × 10/31 = 31.935... and 99 × 21/31 = 67.064...
    assert [(row.charge_id, str(row.amount)) for row in sink.rows] == [("base", "99.00")]  # 31.94 + 67.06


def entry(last: int, *windows: WindowRow, samples: Sequence[SampleRow] = (), received: datetime = NOW) -> bytes:
    received_ms = int(received.timestamp() * 1_000)
    aggregations = {"cpu": "sum", "users": "unique", "stored": "time_weighted"}
    return encode_entry(
        JournalEntry(
            FORMAT, last - 10, last - 9, last, "w", 0, received_ms, 10, 0, 0, b"", b"", b"", list(windows), [],
            list(samples), [], [], [], dict.fromkeys(aggregations, ()), aggregations, {}, 0,
        )
    )  # fmt: skip


def test_a_journal_record_tells_which_months_it_touched() -> None:
    last_minute, first_minute = (int(instant.timestamp()) for instant in (OCTOBER.end, OCTOBER.start))
    touched = read_touched(
        entry(
            99,
            WindowRow("a", "cpu", (), first_minute, 0, "1", 1),
            WindowRow("a", "cpu", (), last_minute - 60, 0, "1", 1),
            WindowRow("b", "cpu", (), last_minute, 0, "1", 1),
        )
    )
    assert touched == Touched(frozenset({("a", OCTOBER), ("b", NOVEMBER)}), 100)


def test_a_sample_touches_its_month_and_a_level_every_month_since() -> None:
    august, september = parse_month("2026-08"), parse_month("2026-09")
    august_us = int(august.start.timestamp()) * 1_000_000
    users = SampleRow("a", "users", (), august_us, "u1", 99, -1)
    assert read_touched(entry(99, samples=[users])).months == {("a", august)}
    stored = SampleRow("b", "stored", (), august_us, "1", 99, -1, removed=True)
    assert read_touched(entry(99, samples=[stored])).months == {("b", august), ("b", september), ("b", OCTOBER)}
    found = read_touched(entry(99, samples=[stored], received=september.start))
    assert found.months == {("b", august), ("b", september)}


def test_changes_wait_for_the_warehouse_in_order() -> None:
    zero, one = TopicPartition("j", 0), TopicPartition("j", 1)
    pending = Pending()
    pending.add(zero, 5, Touched(frozenset({("a", OCTOBER)}), 100))
    pending.add(zero, 7, Touched(frozenset({("b", OCTOBER)}), 200))
    pending.add(one, 3, Touched(frozenset({("c", OCTOBER)}), 50))
    assert pending.take_stored({0: 99}) == (set(), {})
    assert pending.take_stored({0: 199}) == ({("a", OCTOBER)}, {zero: 6})
    assert pending.take_stored({0: 200, 1: 50}) == ({("b", OCTOBER), ("c", OCTOBER)}, {zero: 8, one: 4})
    assert pending.count == 0


def test_partitions_of_other_workers_are_forgotten() -> None:
    zero, one = TopicPartition("j", 0), TopicPartition("j", 1)
    pending = Pending()
    pending.add(zero, 5, Touched(frozenset({("a", OCTOBER)}), 100))
    pending.add(one, 5, Touched(frozenset({("b", OCTOBER)}), 100))
    pending.keep_only({one})
    assert pending.take_stored({0: 100, 1: 100}) == ({("b", OCTOBER)}, {one: 6})
