"""Laws of rating: whatever the plan and the usage are, these hold."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from core.money import round_to_minor
from rating.domain.plan import Plan
from rating.domain.usage import UsageRow, usage_row
from tests.rating.plans import ALWAYS, METERS, OCTOBER, TIERS, plan_of, rate

GRADUATED = plan_of(
    {
        "id": "cpu",
        "meter": "cpu",
        "model": "graduated",
        "tiers": [
            {"up_to": "10.5", "unit_amount": "0.033"},
            {"up_to": "20", "unit_amount": "0"},
            {"up_to": "inf", "unit_amount": "1.0001"},
        ],
    },
    {"id": "min", "model": "minimum", "minimum_amount": "7.77"},
)
plans = st.sampled_from([*TIERS.values(), GRADUATED])
quantities = st.decimals(min_value=0, max_value=10**9, places=6)
values = st.sampled_from(["", "gpt4", "claude", "hot", "t4", "other"])


@st.composite
def rows(draw: st.DrawFn) -> UsageRow:
    meter = METERS[draw(st.sampled_from(sorted(METERS)))]
    return usage_row(meter.meter_id, draw(quantities), {name: draw(values) for name in meter.dimensions})


usages = st.lists(rows(), max_size=12)


@given(plans, usages, st.randoms(use_true_random=False))
def test_the_order_of_usage_does_not_matter(plan: Plan, usage: list[UsageRow], random: object) -> None:
    shuffled = sorted(usage, key=lambda row: random.random())  # type: ignore[attr-defined]
    assert rate(plan, shuffled, OCTOBER, ALWAYS) == rate(plan, usage, OCTOBER, ALWAYS)


@given(plans, usages, st.fractions(min_value=0, max_value=1, max_denominator=7))
def test_splitting_rows_changes_nothing(plan: Plan, usage: list[UsageRow], share: Fraction) -> None:
    split = []
    for row in usage:
        first = (row.quantity * share.numerator / share.denominator).quantize(Decimal("0.000001"))
        split += [usage_row(row.meter_id, part, dict(row.dimensions)) for part in (first, row.quantity - first)]
    assert rate(plan, split, OCTOBER, ALWAYS) == rate(plan, usage, OCTOBER, ALWAYS)


@given(plans, usages)
def test_lines_add_up_and_round_once(plan: Plan, usage: list[UsageRow]) -> None:
    rated = rate(plan, usage, OCTOBER, ALWAYS)
    assert rated.total == sum((line.amount for line in rated.lines), Decimal(0))
    for line in rated.lines:
        assert line.amount == round_to_minor(line.exact_amount, "USD")
        assert abs(line.amount - line.exact_amount) <= Decimal("0.005")
        if line.unit_amount is not None:
            assert line.exact_amount == line.quantity * line.unit_amount / line.per


@given(plans, usages, rows())
def test_more_usage_never_costs_less(plan: Plan, usage: list[UsageRow], more: UsageRow) -> None:
    assert rate(plan, [*usage, more], OCTOBER, ALWAYS).total >= rate(plan, usage, OCTOBER, ALWAYS).total


@given(plans, usages)
def test_all_usage_is_on_a_line_or_reported_as_unpriced(plan: Plan, usage: list[UsageRow]) -> None:
    rated = rate(plan, usage, OCTOBER, ALWAYS)
    used: dict[str, Decimal] = {}
    for row in usage:
        used[row.meter_id] = used.get(row.meter_id, Decimal(0)) + row.quantity
    found: dict[str, Decimal] = {}
    accounted: Sequence[tuple[str | None, Decimal]] = [
        *((line.meter_id, line.quantity) for line in rated.lines),
        *((row.meter_id, row.quantity) for row in rated.unpriced),
    ]
    for meter_id, quantity in accounted:
        if meter_id is not None:
            found[meter_id] = found.get(meter_id, Decimal(0)) + quantity
    assert found == {meter_id: quantity for meter_id, quantity in used.items() if quantity}


@given(plans, usages)
def test_no_usage_gives_no_usage_lines(plan: Plan, usage: list[UsageRow]) -> None:
    nothing = [usage_row(row.meter_id, 0, dict(row.dimensions)) for row in usage]
    assert all(line.kind != "usage" for line in rate(plan, nothing, OCTOBER, ALWAYS).lines)


@given(plans, usages)
def test_lines_of_a_plan_have_distinct_names(plan: Plan, usage: list[UsageRow]) -> None:
    lines = rate(plan, usage, OCTOBER, ALWAYS).lines
    names = {(line.charge_id, line.part, line.dimensions) for line in lines}
    assert len(names) == len(lines)
