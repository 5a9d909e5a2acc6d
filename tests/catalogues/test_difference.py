"""What a catalogue would change: laws over documents and catalogues, and how it reads."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogues.apply_catalogue import apply_catalogue, find_difference
from catalogues.domain.difference import ORDER, FieldChange, compare_documents, leaves
from catalogues.load_catalogue import CatalogueFile, load_catalogue
from catalogues.show_difference import difference_document, difference_text, path_text
from core.errors import InvalidInputError
from rating.domain.digest import canonical_json
from tests.catalogues.memory import MemoryCatalogueStore, MemoryUsage

NOW = datetime(2026, 10, 1, tzinfo=UTC)

names = st.sampled_from(["a", "b", "c", "gpt-3.5", "unit_amounts"])
scalars = st.one_of(st.sampled_from(["1", "1.0", "2"]), st.booleans(), st.integers(0, 2))
lists = st.one_of(
    st.lists(scalars, max_size=3),
    st.lists(st.builds(lambda one, value: {"id": one, "v": value}, names, scalars), max_size=3),
    st.lists(st.builds(lambda one, value: {"up_to": one, "v": value}, scalars, scalars), max_size=3),
    st.lists(st.builds(lambda one, value: {"match": {"m": one}, "v": value}, names, scalars), max_size=3),
)
documents = st.dictionaries(
    names, st.recursive(st.one_of(scalars, lists), lambda inner: st.dictionaries(names, inner, max_size=3)), max_size=4
)


@settings(max_examples=60)
@given(documents)
def test_a_document_does_not_differ_from_itself(document: dict[str, Any]) -> None:
    assert compare_documents(document, copy.deepcopy(document)) == ()


@settings(max_examples=60)
@given(documents, documents)
def test_documents_that_differ_have_a_leaf_that_differs(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (compare_documents(one, two) == ()) == (canonical_json(one) == canonical_json(two))


@settings(max_examples=60)
@given(documents, documents)
def test_the_changed_leaves_make_one_document_of_the_other(one: dict[str, Any], two: dict[str, Any]) -> None:
    patched = dict(leaves(one)) if one else {}
    for change in compare_documents(one, two):
        assert patched.get(change.path) == change.before
        if change.after is None:
            del patched[change.path]
        else:
            patched[change.path] = change.after
    assert patched == (dict(leaves(two)) if two else {})


@settings(max_examples=60)
@given(documents, documents)
def test_the_way_back_undoes_the_way_there(one: dict[str, Any], two: dict[str, Any]) -> None:
    there = {(change.path, repr(change.before), repr(change.after)) for change in compare_documents(one, two)}
    back = {(change.path, repr(change.after), repr(change.before)) for change in compare_documents(two, one)}
    assert there == back


@pytest.mark.parametrize(("one", "two"), [(True, 1), (1, "1"), ([True], [1]), ("1", "1.0"), ([], {}), ("", [])])
def test_what_is_written_otherwise_differs(one: Any, two: Any) -> None:
    assert compare_documents({"a": one}, {"a": two}) == (FieldChange(("a",), one, two),)


# --- catalogues -------------------------------------------------------------------------------------------------------
amounts = st.sampled_from(["0", "1", "1.50", "2"])
charges = st.lists(
    st.one_of(
        st.builds(lambda one, a: {"id": one, "model": "flat", "flat_amount": a}, st.sampled_from("abc"), amounts),
        st.builds(
            lambda one, a: {"id": one, "model": "per_unit", "meter": "m", "unit_amount": a},
            st.sampled_from("abc"),
            amounts,
        ),
    ),
    max_size=3,
    unique_by=lambda charge: charge["id"],
)
plans = st.builds(
    lambda said, features: (
        {"name": "P", "currency": "USD", "charges": [{"name": "N", **one} for one in said]}
        | ({"features": features} if features else {})
    ),
    charges,
    st.dictionaries(st.sampled_from(["x", "y"]), st.booleans()),
)
catalogues = st.builds(
    lambda unit, sold: {
        "catalogue": "law",
        "meters": {"m": {"unit": "u", "event_type": "t", "aggregation": "count"}, "n": {**unit, "event_type": "t"}},
        "features": {"x": {"kind": "boolean"}, "y": {"kind": "boolean"}},
        "plans": sold,
    },
    st.sampled_from([{"unit": "u", "aggregation": "count"}, {"unit": "w", "aggregation": "count"}]),
    st.dictionaries(st.sampled_from(["p", "q"]), plans),
)


@settings(max_examples=60)
@given(st.lists(catalogues, min_size=1, max_size=4))
async def test_after_applying_what_was_shown_nothing_differs(series: list[dict[str, Any]]) -> None:
    store, usage = MemoryCatalogueStore(), MemoryUsage()
    versions: dict[str, int] = {}
    for content in series:
        catalogue = load_catalogue([CatalogueFile("law.yaml", canonical_json(content))])
        shown = await find_difference(catalogue, store=store, usage=usage, now=NOW)
        applied = await apply_catalogue(catalogue, store=store, usage=usage, now=NOW)
        assert applied.difference == shown
        assert all(change.fields for change in shown.changes), "what changes shows in what"
        after = await find_difference(catalogue, store=store, usage=usage, now=NOW)
        assert after.is_empty
        assert after.unchanged == len(catalogue.meters) + len(catalogue.features) + len(catalogue.plans)
        for plan_id, version in applied.plans:
            assert version == versions.get(plan_id, 0) + 1
            versions[plan_id] = version


# --- how it reads -----------------------------------------------------------------------------------------------------
BEFORE = """
catalogue: shop
version: 1
effective_from: 2026-01-01
meters: {cpu: {unit: hour, event_type: cpu, aggregation: sum, value_property: h, dimensions: [class]}}
features: {sso: {kind: boolean}}
plans:
  pro:
    name: Pro
    currency: USD
    features: {sso: false}
    limits: {cpu: {quantity: "500"}}
    charges:
      - {id: base, name: Base, model: flat, flat_amount: "100"}
      - {id: setup, name: Set-up, model: flat, type: one_time, flat_amount: "50"}
      - id: cpu
        name: CPU
        meter: cpu
        model: graduated
        tiers: [{up_to: "10", unit_amount: "0.50"}, {up_to: inf, unit_amount: "0.40"}]
  old: {name: Old, currency: USD, charges: []}
"""
AFTER = """
catalogue: shop
version: 2
effective_from: 2026-12-01
meters: {cpu: {unit: hour, event_type: cpu, aggregation: sum, value_property: h, dimensions: [class]}}
features: {sso: {kind: boolean}}
plans:
  pro:
    name: Pro
    currency: USD
    features: {sso: true}
    limits: {cpu: {quantity: "750"}}
    charges:
      - {id: base, name: Base, model: flat, flat_amount: "109.9"}
      - id: cpu
        name: CPU
        meter: cpu
        model: graduated
        tiers:
          - {up_to: "10", unit_amount: "0.50"}
          - {up_to: "100", unit_amount: "0.45"}
          - {up_to: inf, unit_amount: "0.30"}
      - {id: support, name: Support, model: flat, flat_amount: "20"}
  new: {name: New, currency: USD, charges: [{id: base, name: Base, model: flat, flat_amount: "5"}]}
"""
READS = """\
catalogue shop: version 2, from 2026-12-01

plan pro: version 1 → 2, sold from 2026-12-01
  ~ limits.cpu.quantity                 500 → 750    +50.0 %
  ~ base.flat_amount                    100 → 109.9  +9.9 %
  + cpu.tiers[up_to 100].unit_amount    0.45
  ~ cpu.tiers[up_to inf].unit_amount    0.40 → 0.30  -25.0 %
  + support                             flat, flat_amount 20
  ~ features.sso                        false → true
  - setup                               flat, type one_time, flat_amount 50

plan new: new, version 1, sold from 2026-12-01
  + name      New
  + currency  USD
  + base      flat, flat_amount 5

no longer in the files, and kept as they are: old (shop)

1 new plan, 1 changed plan would be stored; 2 as before"""


async def changed() -> Any:
    store, usage = MemoryCatalogueStore(), MemoryUsage()
    before, after = (load_catalogue([CatalogueFile("shop.yaml", text.encode())]) for text in (BEFORE, AFTER))
    await apply_catalogue(before, store=store, usage=usage, now=NOW)
    return await find_difference(after, store=store, usage=usage, now=NOW)


async def test_every_price_that_changes_is_shown_with_what_it_was() -> None:
    shown = difference_text(await changed(), is_done=False)
    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        " ".join(line.split()) for line in READS.splitlines()
    ]


async def test_as_json_every_leaf_has_its_place() -> None:
    document = difference_document(await changed())
    assert document["editions"] == [{"catalogue": "shop", "version": 2, "effective_from": "2026-12-01T00:00:00Z"}]
    pro, new = document["changes"]
    assert (pro["id"], pro["version"], pro["effective_from"]) == (
        "pro",
        {"before": 1, "after": 2},
        "2026-12-01T00:00:00Z",
    )
    assert {"path": "charges.base.flat_amount", "before": "100", "after": "109.9"} in pro["fields"]
    assert (new["is_new"], new["version"]["before"]) == (True, None)
    assert document["kept"] == [{"catalogue": "shop", "plan": "old"}]
    assert document["refused"] == []


async def test_another_order_of_charges_is_a_change_that_is_seen() -> None:
    store, usage = MemoryCatalogueStore(), MemoryUsage()
    both = '{id: a, name: A, model: flat, flat_amount: "1"}', '{id: b, name: B, model: flat, flat_amount: "1"}'
    found = None
    for order in (both, both[::-1]):
        text = f"plans: {{p: {{name: P, currency: USD, charges: [{', '.join(order)}]}}}}"
        catalogue = load_catalogue([CatalogueFile("x.yaml", text.encode())])
        found = (await apply_catalogue(catalogue, store=store, usage=usage, now=NOW)).difference
    assert found is not None
    assert found.changes[0].fields == (FieldChange(("charges", ORDER), ["a", "b"], ["b", "a"]),)
    assert "~ charges.(order)  a, b → b, a" in difference_text(found, is_done=True)


async def test_nothing_new_says_so() -> None:
    store, usage = MemoryCatalogueStore(), MemoryUsage()
    catalogue = load_catalogue([CatalogueFile("shop.yaml", BEFORE.encode())])
    await apply_catalogue(catalogue, store=store, usage=usage, now=NOW)
    again = (await apply_catalogue(catalogue, store=store, usage=usage, now=NOW)).difference
    assert difference_text(again, is_done=True) == "nothing new: what the files say is stored"
    assert difference_text(again, is_done=False) == "no difference: what the files say is stored"


async def test_a_refusal_is_shown_beside_what_would_change() -> None:
    store, usage = MemoryCatalogueStore(), MemoryUsage({"cpu"})
    for text in (BEFORE, BEFORE.replace("unit: hour", "unit: minute").replace('"100"', '"120"')):
        catalogue = load_catalogue([CatalogueFile("shop.yaml", text.encode())])
        difference = await find_difference(catalogue, store=store, usage=usage, now=NOW)
        if not difference.refused:
            await apply_catalogue(catalogue, store=store, usage=usage, now=NOW)
    shown = difference_text(difference, is_done=False)
    assert "it would be refused:" in shown
    assert "  shop.version: version 1 is stored with other content: a changed catalogue is version 2" in shown
    assert "  meters.cpu: usage or a plan relies on what it counts" in shown
    assert "~ base.flat_amount  100 → 120  +20.0 %" in shown
    with pytest.raises(InvalidInputError):
        await apply_catalogue(catalogue, store=store, usage=usage, now=NOW)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("a", "b"), "a.b"),
        (("unit_amounts", "gpt-3.5"), 'unit_amounts["gpt-3.5"]'),
        (("filters", "[0]", "values"), "filters[0].values"),
        (("tiers", '[{"up_to": "10"}]', "unit_amount"), "tiers[up_to 10].unit_amount"),
        (("cells", '[{"match": {"a": "x", "b": "y"}}]'), "cells[a x / b y]"),
    ],
)
def test_ways_read_like_ways(path: tuple[str, ...], text: str) -> None:
    assert path_text(path) == text
