"""Which contract counts when, and overrides laid over each other: laws, and the cases at the borders."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError, InvalidInputError
from core.period import Period
from rating.domain.contract import Contract, contract_at, contract_periods
from rating.domain.override_plan import merge_overrides, override_plan

BASE = datetime(2026, 10, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return BASE + timedelta(days=number)


def contract(start: int, end: int | None, plan: str = "enterprise", version: int = 1) -> Contract:
    return Contract(f"c{start}", version, "acme", plan, day(start), None if end is None else day(end), {})


ROW = (contract(0, 31), contract(31, 60), contract(70, None))


@pytest.mark.parametrize(
    ("at", "which"),
    [(-1, None), (0, "c0"), (30, "c0"), (31, "c31"), (59, "c31"), (60, None), (70, "c70"), (999, "c70")],
)
def test_the_contract_of_an_instant_is_half_open(at: int, which: str | None) -> None:
    found = contract_at(ROW, day(at))
    assert (found.contract_id if found else None) == which


def test_a_contract_counts_for_its_plan_only() -> None:
    mixed = (*ROW, contract(0, None, "lite"))
    found = contract_at(mixed, day(60), plan_id="lite")
    assert found is not None
    assert found.plan_id == "lite"
    assert contract_at(mixed, day(60), plan_id="enterprise") is None


def test_two_that_count_at_once_are_our_own_mistake() -> None:
    with pytest.raises(BrokenInvariantError, match="several contracts count"):
        contract_at((contract(0, 31), contract(30, None)), day(30))


def test_a_contract_without_length_is_our_own_mistake() -> None:
    with pytest.raises(BrokenInvariantError, match="for no time"):
        contract(5, 5)


def test_a_month_is_cut_where_contracts_change() -> None:
    pieces = contract_periods(ROW, Period(day(20), day(80)))
    assert [(str(piece), one.contract_id if one else None) for piece, one in pieces] == [
        ("2026-10-21T00:00:00Z/2026-11-01T00:00:00Z", "c0"),
        ("2026-11-01T00:00:00Z/2026-11-30T00:00:00Z", "c31"),
        ("2026-11-30T00:00:00Z/2026-12-10T00:00:00Z", None),
        ("2026-12-10T00:00:00Z/2026-12-20T00:00:00Z", "c70"),
    ]


@given(cuts=st.lists(st.integers(0, 60), min_size=2, max_size=9, unique=True), of=st.tuples(st.integers(0, 59)))
def test_the_pieces_are_the_whole_and_each_has_the_contract_of_its_instants(cuts: list[int], of: tuple[int]) -> None:
    bounds = sorted(cuts)
    # Every second stretch has a contract, so there are gaps, neighbours' ends and an open end.
    row = [contract(start, end) for start, end in itertools.pairwise(bounds)][::2]
    row.append(contract(bounds[-1], None))
    within = Period(day(of[0]), day(of[0] + 7))
    pieces = contract_periods(row, within)
    assert pieces[0][0].start == within.start
    assert pieces[-1][0].end == within.end
    assert all(left[0].end == right[0].start for left, right in itertools.pairwise(pieces))
    for piece, counts in pieces:
        for instant in (piece.start, piece.start + (piece.end - piece.start) / 2, piece.end - timedelta(minutes=1)):
            assert contract_at(row, instant) is counts


@given(st.integers(0, 9), st.integers(1, 9), st.integers(0, 9), st.integers(1, 9))
def test_overlapping_is_sharing_an_instant(start: int, length: int, other: int, other_length: int) -> None:
    one, two = contract(start, start + length), contract(other, other + other_length)
    shared = any(one.holds_at(day(number)) and two.holds_at(day(number)) for number in range(20))
    assert one.overlaps(two) == two.overlaps(one) == shared
    assert not one.overlaps(Contract("x", 1, "globex", "enterprise", day(0), None, {}))


DOCUMENT: dict[str, Any] = {
    "name": "Enterprise",
    "currency": "USD",
    "limits": {"cpu": {"quantity": "5"}},
    "charges": [
        {"id": "base", "model": "flat", "flat_amount": "0"},
        {"id": "cpu", "model": "per_unit", "meter": "cpu", "unit_amount": "0.05"},
    ],
}
fields = st.dictionaries(
    st.sampled_from(["flat_amount", "unit_amount", "model"]), st.sampled_from(["1", "2", None]), max_size=3
)
charges = st.lists(
    st.builds(lambda name, rest: {"id": name, **rest}, st.sampled_from(["base", "cpu", "new", "other"]), fields),
    max_size=5,
)
limits = st.dictionaries(st.sampled_from(["cpu", "gpu"]), st.sampled_from([{"quantity": "1"}, None]))
overrides = st.fixed_dictionaries(
    {}, optional={"charges": charges, "limits": limits, "name": st.sampled_from(["A", "B"])}
)


@given(overrides, overrides)
def test_merged_overrides_do_what_both_do_one_after_the_other(first: dict[str, Any], second: dict[str, Any]) -> None:
    both = override_plan(override_plan(DOCUMENT, first), second)
    assert override_plan(DOCUMENT, merge_overrides(first, second)) == both


@given(overrides)
def test_laying_the_same_overrides_over_twice_changes_nothing(one: dict[str, Any]) -> None:
    assert override_plan(override_plan(DOCUMENT, one), one) == override_plan(DOCUMENT, one)
    assert merge_overrides(one, {}) == merge_overrides({}, one)


def test_a_plan_document_is_never_changed_in_place() -> None:
    document = {"name": "P", "currency": "USD", "charges": [{"id": "a", "unit_amount": "1"}]}
    override_plan(document, {"charges": [{"id": "a", "unit_amount": "2"}], "limits": {"cpu": {"quantity": "1"}}})
    assert document == {"name": "P", "currency": "USD", "charges": [{"id": "a", "unit_amount": "1"}]}


@pytest.mark.parametrize(
    ("wrong", "code", "path"),
    [
        ({"currency": "EUR"}, "unknown_field", "overrides.currency"),
        ({"charges": {}}, "invalid_type", "overrides.charges"),
        ({"charges": [{"unit_amount": "1"}]}, "missing_field", "overrides.charges[0]"),
        ({"charges": ["base"]}, "missing_field", "overrides.charges[0]"),
        ({"limits": []}, "invalid_type", "overrides.limits"),
    ],
)
def test_overrides_of_another_shape_are_refused(wrong: dict[str, Any], code: str, path: str) -> None:
    for refused in (lambda: override_plan(DOCUMENT, wrong), lambda: merge_overrides({}, wrong)):
        with pytest.raises(InvalidInputError) as error:
            refused()
        assert [(fault.code, fault.path) for fault in error.value.faults] == [(code, path)]
