"""Usage behind an invoice: totals, hours and digest of the same rows, against sums and texts made the plain way."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from invoicing.domain.usage_evidence import HourOfUsage, UsageByHour, UsageEvidence, usage_by_hour

START = datetime(2026, 10, 1, tzinfo=UTC)
VALUES = [(), (("gpu", "a100"),), (("gpu", "t4"),), (("gpu", "t4"), ("region", "eu"))]
ROWS = st.builds(
    HourOfUsage,
    st.sampled_from(["cpu", "gpu"]),
    st.sampled_from(VALUES),
    st.integers(0, 30).map(lambda hours: START + timedelta(hours=hours)),
    st.decimals(0, 10**9, places=3).map(Decimal.normalize),
    st.integers(1, 99),
)


def written(quantity: Decimal) -> str:
    text = f"{quantity:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@given(st.lists(ROWS))
def test_totals_and_hours_are_the_sums_of_the_rows(rows: list[HourOfUsage]) -> None:
    evidence = UsageEvidence.of(usage_by_hour(rows))
    totals: dict[tuple[str, object], Decimal] = {}
    for row in rows:
        key = (row.meter_id, row.dimensions)
        totals[key] = totals.get(key, Decimal(0)) + row.quantity
    assert {(row.meter_id, row.dimensions): row.quantity for row in evidence.totals()} == totals
    for meter in ("cpu", "gpu"):
        for asked in ((), (("gpu", "t4"),), (("gpu", "t4"), ("region", "")), (("gpu", ""),)):
            mine = [row for row in rows if row.meter_id == meter and agrees(dict(row.dimensions), dict(asked))]
            hours = sorted({row.hour for row in mine})
            assert evidence.by_hour(meter, asked) == [
                [
                    f"{hour:%Y-%m-%dT%H}",
                    written(sum((row.quantity for row in mine if row.hour == hour), Decimal(0))),
                    sum(row.events for row in mine if row.hour == hour),
                ]
                for hour in hours
            ]


def agrees(values: dict[str, str], asked: dict[str, str]) -> bool:
    return all(values.get(name, "") == value for name, value in asked.items())


@given(st.lists(ROWS), st.randoms())
def test_the_digest_is_that_of_the_sorted_rows_in_any_order(rows: list[HourOfUsage], random: object) -> None:
    lines = []
    for meter, values, hour, quantity, events in sorted(rows):
        shown = "\x1f".join(f"{name}={value}" for name, value in values)
        lines.append(f"{meter}\t{shown}\t{hour:%Y-%m-%dT%H}\t{written(quantity)}\t{events}\n")
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert UsageEvidence.of(usage_by_hour(shuffled)).digest == UsageEvidence.of(usage_by_hour(rows)).digest == expected


def test_hours_are_written_in_utc() -> None:
    there = timezone(timedelta(hours=2))
    evidence = UsageEvidence.of([UsageByHour("cpu", (), ((START.astimezone(there), Decimal("1.50"), 3),))])
    assert evidence.by_hour("cpu", ()) == [["2026-10-01T00", "1.5", 3]]


def usage(meter: str = "cpu", quantity: str = "1", hour: datetime = START) -> UsageByHour:
    return UsageByHour(meter, (), ((hour, Decimal(quantity), 1),))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([usage(quantity="-0.1")], "usage of cpu is negative in 2026-10-01"),
        ([usage(hour=START.replace(tzinfo=None))], "without a time zone"),
        ([usage("cpu"), usage("gpu"), usage("cpu")], "not in order"),
        ([usage("cpu"), usage("cpu")], "not in order"),
        ([UsageByHour("cpu", (), usage(hour=START + timedelta(hours=1)).hours + usage().hours)], "not in order"),
    ],
)
def test_what_makes_no_sense_stops_the_work(rows: list[UsageByHour], reason: str) -> None:
    with pytest.raises(BrokenInvariantError, match=reason):
        UsageEvidence(tuple(rows))
