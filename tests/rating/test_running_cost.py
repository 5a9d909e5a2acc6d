"""The running cost is what the invoice would say now, absolute, and only of what the warehouse has stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from aiokafka import TopicPartition

from core.calendar import UTC_MONTHS, Calendar
from core.journal import FORMAT, JournalEntry, SampleRow, WindowRow, encode_entry
from core.period import Period, parse_month
from rating.adapters.kafka import Touched, read_touched
from rating.consumer import Pending
from rating.domain.cycle import Interval, calendar_cycle
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.proration import Convention
from rating.domain.timeline import Held, Phase, Timeline
from rating.domain.usage import UsageRow, usage_row
from rating.domain.windows import Windows
from rating.ports import CostKey, CostRow, HeldTimeline
from rating.rate_open_periods import rate_open_periods
from tests.rating.plans import OCTOBER, TIERS, Term, rate

NOW = datetime(2026, 10, 15, 12, tzinfo=UTC)
NOVEMBER = parse_month("2026-11")


class Plans:
    def __init__(self, *held: HeldTimeline) -> None:
        self._held = held

    async def held(self, tenant_ids: Sequence[str], span: Period) -> list[HeldTimeline]:
        return [one for one in self._held if one.timeline.tenant_id in tenant_ids]


class Usage:
    def __init__(self, rows: Mapping[str, Sequence[UsageRow]]) -> None:
        self._rows, self.asked = dict(rows), list[tuple[tuple[str, ...], Windows]]()

    async def usage(self, tenant_ids: Sequence[str], windows: Windows, **_: Any) -> Mapping[str, Sequence[UsageRow]]:
        self.asked.append((tuple(tenant_ids), windows))
        return {tenant: self._rows[tenant] for tenant in tenant_ids if tenant in self._rows}

    async def fine_usage(
        self, tenant_ids: Sequence[str], windows: Windows, wanted: Collection[FineUsage], **_: Any
    ) -> Mapping[str, Entries]:
        raise AssertionError("no plan here has prices of single events")


class Sink:
    """Keeps every row that was ever put; what is present is the newest of each key."""

    def __init__(self) -> None:
        self.rows: list[CostRow] = []

    @property
    def newest(self) -> dict[CostKey, CostRow]:
        return {row.key: row for row in self.rows}

    def cost(self, tenant_id: str = "acme") -> Decimal:
        return sum((row.amount for row in self.newest.values() if row.tenant_id == tenant_id), Decimal(0))

    async def present(self, tenant_ids: Sequence[str], periods: Sequence[str]) -> list[CostKey]:
        rows = [row for row in self.newest.values() if row.tenant_id in tenant_ids and row.period in periods]
        return [row.key for row in rows if row.amount or row.quantity]

    async def put(self, rows: Sequence[CostRow]) -> None:
        self.rows += rows


def held(
    tenant: str, *phases: tuple[str, str], ended: str | None = None, calendar: Calendar = UTC_MONTHS
) -> HeldTimeline:
    """Return a timeline of tiers, each from a day on."""
    starts = [datetime.fromisoformat(start).replace(tzinfo=UTC) for _, start in phases]
    ends = [*starts[1:], datetime.fromisoformat(ended).replace(tzinfo=UTC) if ended else None]
    timeline = Timeline(
        f"sub_{tenant}",
        tenant,
        calendar_cycle(Interval.MONTH, calendar, starts[0]),
        Convention.DAYS,
        tuple(Phase(start, end, Held(tier, 1)) for (tier, _), start, end in zip(phases, starts, ends, strict=True)),
    )
    return HeldTimeline(timeline, {f"{tier}@1": TIERS[tier] for tier, _ in phases})


USED = [
    usage_row("agent_executions", 120_000),
    usage_row("llm_input_tokens", 500_000, {"model": "gpt4"}),
    usage_row("llm_input_tokens", 500_000, {"model": "claude"}),
]


async def test_rows_are_summed_by_charge_and_meter() -> None:
    sink = Sink()
    plans, usage = Plans(held("acme", ("lite", "2026-01-01"))), Usage({"acme": USED})
    assert await rate_open_periods([("acme", OCTOBER)], plans=plans, usage=usage, sink=sink, now=NOW) == 3
    assert [(row.charge_id, row.meter_id, str(row.quantity), str(row.amount)) for row in sink.rows] == [
        ("base", "", "1", "99.00"),
        ("agent_executions", "agent_executions", "120000", "10.00"),  # 20,000 × 0.0005
        ("llm_input_tokens", "llm_input_tokens", "1000000", "27.50"),  # 15.00 + 12.50
    ]
    assert {(row.period, row.version) for row in sink.rows} == {("2026-10", 1_792_065_600_000)}


async def test_the_running_cost_is_the_sum_of_the_invoices_lines() -> None:
    sink = Sink()
    plans = Plans(held("acme", ("enterprise", "2026-01-01")))
    await rate_open_periods([("acme", OCTOBER)], plans=plans, usage=Usage({"acme": USED}), sink=sink, now=NOW)
    invoice = rate(TIERS["enterprise"], USED, OCTOBER, Term(parse_month("2026-01").start))
    assert sink.cost() == invoice.total


async def test_usage_is_read_once_per_window_and_month() -> None:
    since_january, late = ("shared", "2026-01-01"), ("shared", "2026-10-05")
    plans = Plans(held("a", since_january), held("b", since_january), held("c", late))
    usage, sink = Usage({}), Sink()
    touched = [("a", OCTOBER), ("b", OCTOBER), ("c", OCTOBER), ("a", OCTOBER), ("a", NOVEMBER), ("nobody", OCTOBER)]
    assert await rate_open_periods(touched, plans=plans, usage=usage, sink=sink, now=NOW) == 0
    assert usage.asked == [
        (("a", "b"), OCTOBER),
        (("a",), NOVEMBER),
        (("c",), Period(OCTOBER.start.replace(day=5), OCTOBER.end)),
    ]
    assert sink.rows == []


async def test_two_plans_held_in_one_month_stand_side_by_side() -> None:
    sink, usage = Sink(), Usage({})
    plans = Plans(held("acme", ("lite", "2026-01-01"), ("shared", "2026-10-11"), ("lite", "2026-10-21")))
    await rate_open_periods([("acme", OCTOBER)], plans=plans, usage=usage, sink=sink, now=NOW)
    # 99 × 10/31 + 99 × 11/31 = 99 × 21/31 = 67.064...: one holding, rated and rounded once
    assert [(row.holding, row.charge_id, str(row.amount)) for row in sink.rows] == [("lite@1", "base", "67.06")]
    tenth, twentieth = OCTOBER.start.replace(day=11), OCTOBER.start.replace(day=21)
    assert [windows for _, windows in usage.asked] == [
        (Period(OCTOBER.start, tenth), Period(twentieth, OCTOBER.end)),
        Period(tenth, twentieth),
    ]


async def test_what_is_owed_no_longer_becomes_a_row_of_zero() -> None:
    usage, sink = Usage({"acme": [usage_row("cpu", 100), usage_row("memory", 7)]}), Sink()
    plans = Plans(held("acme", ("shared", "2026-01-01")))
    await rate_open_periods([("acme", OCTOBER)], plans=plans, usage=usage, sink=sink, now=NOW)
    assert sink.cost() == Decimal("5.07")  # 100 × 0.05 + 7 × 0.01
    # The usage is voided: no line is left that could say so.
    usage._rows["acme"] = [usage_row("memory", 7)]
    later = NOW + timedelta(minutes=1)
    assert await rate_open_periods([("acme", OCTOBER)], plans=plans, usage=usage, sink=sink, now=later) == 2
    assert sink.cost() == Decimal("0.07")
    zero = sink.rows[-1]
    assert (zero.charge_id, zero.amount, zero.quantity, zero.version) == (
        "cpu", Decimal(0), Decimal(0), int(later.timestamp() * 1_000),
    )  # fmt: skip
    # The plan is changed from the month's start, then cancelled from there: rows of the plan before go, too.
    for replaced, cost in (
        (held("acme", ("lite", "2026-10-01")), "99.07"),
        (held("acme", ("lite", "2026-09-01"), ended="2026-10-01"), "0"),
    ):
        await rate_open_periods([("acme", OCTOBER)], plans=Plans(replaced), usage=usage, sink=sink, now=later)
        assert sink.cost() == Decimal(cost)
    # Once they are zero nothing is left to say.
    gone = Plans(held("acme", ("lite", "2026-09-01"), ended="2026-10-01"))
    assert await rate_open_periods([("acme", OCTOBER)], plans=gone, usage=usage, sink=sink, now=later) == 0


async def test_periods_are_those_of_the_tenants_calendar() -> None:
    berlin = Calendar("Europe/Berlin", 15)
    plans, usage, sink = Plans(held("acme", ("lite", "2026-01-01"), calendar=berlin)), Usage({}), Sink()
    # The 15th of October in Berlin begins at 22:00 UTC on the 14th: that day touches two periods.
    day = Period(OCTOBER.start.replace(day=14), OCTOBER.start.replace(day=15))
    await rate_open_periods([("acme", day)], plans=plans, usage=usage, sink=sink, now=NOW)
    assert [(row.period, str(row.amount)) for row in sink.rows] == [("2026-09-15", "99.00"), ("2026-10-15", "99.00")]
    assert [str(windows) for _, windows in usage.asked] == [
        "2026-09-14T22:00:00Z/2026-10-14T22:00:00Z",
        "2026-10-14T22:00:00Z/2026-11-14T23:00:00Z",
    ]


def entry(last: int, *windows: WindowRow, samples: Sequence[SampleRow] = (), received: datetime = NOW) -> bytes:
    received_ms = int(received.timestamp() * 1_000)
    aggregations = {"cpu": "sum", "users": "unique", "stored": "time_weighted"}
    return encode_entry(
        JournalEntry(
            FORMAT, last - 10, last - 9, last, "w", 0, received_ms, 10, 0, 0, b"", b"", b"", list(windows), [],
            list(samples), [], [], [], dict.fromkeys(aggregations, ()), aggregations, {}, 0,
        )
    )  # fmt: skip


def days(first: datetime, count: int = 1) -> Period:
    return Period(first, first + timedelta(days=count))


def test_a_journal_record_tells_which_days_it_touched() -> None:
    last_minute, first_minute = (int(instant.timestamp()) for instant in (OCTOBER.end, OCTOBER.start))
    touched = read_touched(
        entry(
            99,
            WindowRow("a", "cpu", (), first_minute, 0, "1", 1),
            WindowRow("a", "cpu", (), first_minute + 86_399, 0, "1", 1),
            WindowRow("a", "cpu", (), last_minute - 60, 0, "1", 1),
            WindowRow("b", "cpu", (), last_minute, 0, "1", 1),
        )
    )
    first, last = days(OCTOBER.start), days(OCTOBER.end - timedelta(days=1))
    assert touched == Touched(frozenset({("a", first), ("a", last), ("b", days(NOVEMBER.start))}), 100)


def test_a_sample_touches_its_day_and_a_level_every_day_since() -> None:
    august = parse_month("2026-08")
    august_us = int(august.start.timestamp()) * 1_000_000
    users = SampleRow("a", "users", (), august_us, "u1", 99, -1)
    assert read_touched(entry(99, samples=[users])).spans == {("a", days(august.start))}
    stored = SampleRow("b", "stored", (), august_us, "1", 99, -1, removed=True)
    # Received on 15 October: 31 + 30 + 15 days
    assert read_touched(entry(99, samples=[stored])).spans == {("b", days(august.start, 76))}
    assert read_touched(entry(99, samples=[stored], received=august.start)).spans == {("b", days(august.start))}


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
