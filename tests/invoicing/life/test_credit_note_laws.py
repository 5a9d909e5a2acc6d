"""Laws of giving back: parts are whole, nothing goes below zero, value comes from where it is."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given
from msgspec import structs

from core.errors import BrokenInvariantError
from core.period import Period
from invoicing.check_numbers import find_gaps
from invoicing.domain.credit_note import given_back, split, spread_value, value_of
from invoicing.domain.invoice import DocumentKind, Origin
from invoicing.domain.lines import Billed, BilledLine, Line, Share, bill_up, check_recurring, difference
from invoicing.domain.standing import Standing
from tests.invoicing.scene import at
from tests.invoicing.tax.taxing import taxed

OCTOBER = Period(at("2026-10-01"), at("2026-11-01"))
CENTS = st.integers(-50_000, 50_000).map(lambda cents: Decimal(cents).scaleb(-2))


def line(amount: str | Decimal, key: str = "item", **changes: object) -> Line:
    exact = Decimal(amount)
    made = Line(
        item_key=key, charge_id="c", kind="usage", description=key, meter_id="cpu", dimensions=(), quantity=exact,
        unit="", unit_amount=None, per=1, exact_amount=exact, amount=exact, price_digest="", evidence={},
        period=OCTOBER, settles=OCTOBER.start,
    )  # fmt: skip
    return structs.replace(made, **changes)  # type: ignore[arg-type]


def standing(invoice_id: str, total: str, **changes: object) -> Standing:
    made = Standing(
        invoice_id, invoice_id.upper(), "acme", "sub", DocumentKind.INVOICE, Origin.PERIOD, "finalized", "USD", OCTOBER,
        1, Decimal(total), Decimal(0), Decimal(total),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@given(weights=st.lists(CENTS, min_size=1, max_size=8), part=st.integers(0, 1_000))
def test_parts_are_the_whole_and_none_goes_beyond_its_weight(weights: list[Decimal], part: int) -> None:
    whole = sum(weights, Decimal(0))
    assume(whole > 0)
    amount = (whole * part / 1_000).quantize(Decimal("0.01"))
    parts = split(amount, weights, "USD")
    assert sum(parts, Decimal(0)) == amount
    for one, weight in zip(parts, weights, strict=True):
        assert min(Decimal(0), weight) <= one <= max(Decimal(0), weight)
    assert split(whole, weights, "USD") == weights, "all of it is exactly what there was"


@given(
    amounts=st.lists(st.integers(0, 20_000), min_size=1, max_size=4),
    parts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    rate=st.sampled_from(["0", "7", "19", "25.5"]),
    inclusive=st.booleans(),
)
def test_tax_given_back_in_parts_is_the_tax_that_was_charged(
    amounts: list[int], parts: list[int], rate: str, inclusive: bool
) -> None:
    treatment = taxed(rate, inclusive=inclusive)
    lines = []
    for index, cents in enumerate(amounts):
        amount = Decimal(cents).scaleb(-2)
        within = 100 + Decimal(rate) if inclusive else Decimal(100)
        tax = (amount * Decimal(rate) / within).quantize(Decimal("0.01"))
        lines.append(line(amount, f"item {index}", treatment=treatment, tax_amount=tax))
    rows = [BilledLine("inv", "INV", one) for one in lines]
    left = [share for one in bill_up(rows).values() for share in one.shares]
    charged, asked = sum((one.tax_amount for one in lines), Decimal(0)), value_of(left)
    assume(asked > 0)
    for number, part in enumerate([*parts, 10]):
        left = [share for one in bill_up(rows).values() for share in one.shares]
        amount = (value_of(left) * part / 10).quantize(Decimal("0.01"))
        if amount:
            rows += [BilledLine(f"cn{number}", f"CN{number}", one) for one in given_back(left, amount, "USD")]
    given = [row.line for row in rows if row.line.adjusts]
    assert -sum((one.tax_amount for one in given), Decimal(0)) == charged
    assert -sum((one.gross for one in given), Decimal(0)) == asked


@given(steps=st.lists(st.tuples(st.sampled_from(["owed", "back"]), st.integers(0, 9_000)), max_size=10))
def test_an_item_is_worth_what_is_owed_or_what_was_given_back(steps: list[tuple[str, int]]) -> None:
    rows: list[BilledLine] = []
    owed, number = Decimal(0), 0
    for verb, cents in steps:
        amount, number = Decimal(cents).scaleb(-2), number + 1
        billed: dict[str, Billed] = bill_up(rows)
        if verb == "owed":
            owed = amount
            rows += [BilledLine(f"inv{number}", f"N{number}", one) for one in difference([line(owed)], billed)]
            assert [one for one in difference([line(owed)], bill_up(rows)) if one.corrects_invoice] == [], "nothing new"
        else:
            left = [share for one in billed.values() for share in one.shares]
            for share in left:
                part = min(amount, value_of([share]))
                if part > 0:
                    made = given_back([share], part, "USD")
                    rows += [BilledLine(f"cn{number}{share.invoice_id}", f"N{number}", one) for one in made]
                    amount -= part
    found = bill_up(rows).get("item")
    if found is not None:
        worth = found.line.amount + found.adjusted
        assert worth >= 0
        billed_at_last = found.line.amount
        assert billed_at_last >= -found.adjusted
        rows += [BilledLine("last", "LAST", one) for one in difference([line(owed)], bill_up(rows))]
        after = bill_up(rows)["item"]
        assert after.line.amount + after.adjusted == max(owed, -after.adjusted) + after.adjusted


def test_less_is_taken_back_from_the_newest_first() -> None:
    rows = [
        BilledLine("a", "A", line("10.00")),
        BilledLine("b", "B", line("5.00", corrects_invoice="a")),
        BilledLine("c", "C", line("-2.00", corrects_invoice="b")),
    ]
    taken = difference([line("9.00")], bill_up(rows))
    # 13.00 were left, 9.00 are owed: 3.00 of the second, then 1.00 of the first.
    assert [(one.corrects_invoice, str(one.amount)) for one in taken] == [("b", "-3.00"), ("a", "-1.00")]


def test_shares_that_are_not_their_lines_stop_the_work() -> None:
    rows = [BilledLine("a", "A", line("10.00")), BilledLine("b", "B", line("-11.00", corrects_invoice="a"))]
    with pytest.raises(BrokenInvariantError, match="takes back more"):
        bill_up(rows)
    alone = [BilledLine("a", "A", line("10.00")), BilledLine("b", "B", line("-1.00", adjusts=True))]
    with pytest.raises(BrokenInvariantError, match="not billed"):
        bill_up(alone)


def test_recurring_fees_that_overlap_stop_the_work() -> None:
    week = Period(at("2026-10-20"), at("2026-11-20"))
    fees = [
        line("30", f"sub|base||{{}}|{period.start:%Y-%m-%dT%H:%M:%SZ}|p@1", kind="fixed", period=period)
        for period in (OCTOBER, week)
    ]
    with pytest.raises(BrokenInvariantError, match="overlap"):
        check_recurring(fees)
    check_recurring([fees[0], structs.replace(fees[1], kind="usage")])
    check_recurring(fees[:1])


def test_value_goes_off_what_is_open_then_what_was_paid_then_what_was_drawn() -> None:
    one = standing("a", "100", credits_applied=Decimal(30), amount_paid=Decimal(50))
    for value, expected in (("15", (15, 0, 0)), ("60", (20, 40, 0)), ("100", (20, 50, 30))):
        (application,) = spread_value([line(f"-{value}", corrects_invoice="a")], [one])
        parts = (application.amount, application.credit_granted, application.credits_returned)
        assert parts == tuple(map(Decimal, expected))
    with pytest.raises(BrokenInvariantError, match="more would be given back"):
        spread_value([line("-100.01", corrects_invoice="a")], [one])


@given(
    total=st.integers(1, 9_999), drawn=st.integers(0, 9_999), paid=st.integers(0, 9_999), value=st.integers(1, 9_999),
    flying=st.booleans(), other=st.integers(0, 9_999),
)  # fmt: skip
def test_value_is_never_more_than_there_is(
    total: int, drawn: int, paid: int, value: int, flying: bool, other: int
) -> None:
    applied = Decimal(min(drawn, total))
    money = min(Decimal(paid), total - applied)
    first = standing("a", str(total), credits_applied=applied, amount_paid=money, in_flight=flying)
    second = standing("b", str(other))
    lines = [line(Decimal(-value), corrects_invoice="a")]
    if value > total + other:
        with pytest.raises(BrokenInvariantError):
            spread_value(lines, [first, second])
        return
    applications = spread_value(lines, [first, second])
    assert sum((one.total for one in applications), Decimal(0)) == value
    known = {"a": first, "b": second}
    for one in applications:
        at_first = known[one.invoice_id]
        assert min(one.amount, one.credit_granted, one.credits_returned) >= 0
        assert one.amount <= (0 if at_first.in_flight else at_first.amount_open)
        assert one.credits_returned <= at_first.credits_applied
        assert one.total <= at_first.total


def test_gaps_doubles_and_strangers_are_found() -> None:
    fine = find_gaps({"MB-2026": 3, "MB-CN-2026": 1}, ["MB-2026-000002", "MB-2026-000001"])
    assert (fine.faults, fine.given_out) == ((), {"MB-2026": 2, "MB-CN-2026": 0})
    found = find_gaps({"MB-2026": 4}, ["MB-2026-000001", "MB-2026-000003", "MB-2026-000003", "MB-2026-000009"])
    assert found.faults == (
        "MB-2026-000003 stands on 2 documents",
        "MB-2026-000002 was given out and stands on no document",
        "MB-2026-000009 was given out by no series",
    )


def test_a_share_without_money_or_quantity_is_empty() -> None:
    assert Share("a", "A", line("0")).is_empty
    assert not Share("a", "A", line("0", quantity=Decimal(5))).is_empty
