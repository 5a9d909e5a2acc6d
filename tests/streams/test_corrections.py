"""Corrections in the stream change totals as if the usage had been right from the start."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.journal import JournalEntry, decode_entry, encode_entry
from core.meters import Filter, Meter, Registry
from core.quantity import UNIT
from streams.domain.tally import Original
from tests.streams.in_memory import (
    BASE_MS,
    Record,
    amend,
    backfill,
    cloud_event,
    count,
    log_of,
    partition_in_memory,
    void,
)

METERS = [
    Meter("tokens", "token", "llm", "sum", "tokens", ("model",)),
    Meter("calls", "call", "llm", "count", None),
    Meter("peak", "token", "llm", "max", "tokens", ("model",)),
    Meter("users", "user", "llm", "unique", "user"),
    Meter("large", "call", "llm", "count", None, filters=(Filter("tokens", "gte", ("500",)),)),
]
REGISTRY = Registry.of(["acme"], METERS)
OTHER = Registry.of(["acme", "globex"], METERS)
MINUTE = 1_700_158_740  # 2023-11-16T18:19:00Z


def usage(event_id: str, tokens: int = 10, model: str = "m", user: str = "u", **changes: str) -> bytes:
    return cloud_event(event_id, "llm", {"tokens": tokens, "model": model, "user": user}, **changes)


def records_of(*values: bytes, first: int = 0) -> list[Record]:
    return [Record(first + number, BASE_MS + first + number, b"acme", value) for number, value in enumerate(values)]


def windows(*entries: JournalEntry) -> dict[tuple[str, tuple[str, ...]], tuple[int, int]]:
    """Return quantity (units) and events per meter and dimension values, over all windows and segments."""
    newest = {}
    for entry in entries:
        for row in entry.windows:
            newest[row.meter, row.dimensions, row.start, row.segment] = int(row.quantity), row.events
    totals: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
    for (meter, dimensions, _, _), (quantity, events) in newest.items():
        before = totals.get((meter, dimensions), (0, 0))
        totals[meter, dimensions] = before[0] + quantity // UNIT, before[1] + events
    return {key: total for key, total in totals.items() if total != (0, 0)}


def live(*entries: JournalEntry) -> dict[str, tuple[int, int]]:
    """Return the month's live quantity (units) and events per meter."""
    newest = {(r.meter, r.segment): r for entry in entries for r in entry.periods if r.period == "2023-11"}
    totals: dict[str, tuple[int, int]] = {}
    for (meter, _), row in newest.items():
        before = totals.get(meter, (0, 0))
        totals[meter] = before[0] + int(row.quantity) // UNIT, before[1] + row.events
    return totals


def test_a_void_takes_an_event_out_of_every_meter_it_fed() -> None:
    state = partition_in_memory()
    records = records_of(usage("a", 600, user="ann"), usage("b", 40, user="bob"), void("v", "a"))
    entry = count(state, records, REGISTRY).entry
    assert windows(entry) == {("tokens", ("m",)): (40, 1), ("calls", ()): (40 // 40, 1)}
    assert live(entry) == {"tokens": (40, 1), "calls": (1, 1), "peak": (40, 1), "users": (1, 1), "large": (0, 0)}
    assert [(row.kind, row.target_id, row.id) for row in entry.corrections] == [("void", "a", "v")]
    assert (entry.accepted, entry.duplicates, entry.rejected) == (3, 0, 0)


def test_an_amend_counts_its_content_at_its_own_time() -> None:
    state = partition_in_memory()
    first = count(state, records_of(usage("a", 10, user="ann")), REGISTRY).entry
    log = records_of(usage("a", 10, user="ann"))
    replaced = amend("x", "a", "llm", {"tokens": 900, "model": "n", "user": "ann"}, "2023-11-16T17:59:30Z")
    second = count(state, records_of(replaced, first=1), REGISTRY, log_of(log)).entry
    assert windows(first, second) == {("tokens", ("n",)): (900, 1), ("calls", ()): (1, 1), ("large", ()): (1, 1)}
    assert {row.start for row in second.windows} == {MINUTE, 1_700_157_540}
    assert live(first, second)["peak"] == (900, 1)
    # What the amend counts can be corrected in its turn, under the amend's name.
    log += records_of(replaced, first=1)
    third = count(state, records_of(void("y", "x"), first=2), REGISTRY, log_of(log)).entry
    assert windows(first, second, third) == {}
    assert live(first, second, third)["users"] == (0, 0)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (void("v", "nothing"), "unknown_event"),
        (void("v", "a", source="other"), "unknown_event"),
        (void("v", "v0"), "not_correctable"),
        (void("v", "gone"), "already_corrected"),
        (void("v", "v"), "not_correctable"),
        (void("a", "b"), "conflict"),
        (cloud_event("v", "meterbook.usage.void", {}), "invalid_correction"),
        (cloud_event("v", "meterbook.usage.void", {"corrects": {"source": "s", "id": ""}}), "invalid_correction"),
        (amend("v", "a", "llm", {"tokens": -1}), "negative_quantity"),
        (amend("v", "a", "other", {"tokens": 1}), "unknown_meter"),
        (amend("v", "a", "meterbook.usage.void", {}), "invalid_correction"),
        (amend("v", "a", "llm", {"tokens": 1}, "yesterday"), "invalid_time"),
        (cloud_event("v", "meterbook.meter.backfill", {}), "reserved_type"),
        (backfill("v", [], "2023-11-01T00:00:00Z", "2023-11-02T00:00:00Z"), "invalid_range"),
        (backfill("v", [{"id": "1", "type": "llm", "time": "x", "data": {}}], "2023-11-02T00:00:00Z",
                  "2023-11-01T00:00:00Z"), "invalid_range"),
        (backfill("v", [{"id": "1", "type": "llm", "time": "x", "data": {}}], "2023-11-02T00:00:00Z",
                  "2024-11-01T00:00:00Z"), "invalid_range"),
    ],
)  # fmt: skip
def test_a_correction_that_cannot_be_is_refused_and_changes_nothing(bad: bytes, code: str) -> None:
    state = partition_in_memory()
    good = records_of(usage("a"), usage("b"), usage("gone"), void("v0", "gone"))
    before = count(state, good, REGISTRY).entry
    after = count(state, records_of(bad, first=4), REGISTRY, log_of(good))
    assert [letter.code for letter, _ in after.dead_letters] == [code]
    assert (after.entry.accepted, after.entry.windows, after.entry.samples, after.entry.corrections) == (0, [], [], [])
    assert windows(before)["calls", ()] == (2, 2)


def test_the_same_correction_again_is_a_duplicate() -> None:
    state = partition_in_memory()
    log = records_of(usage("a"), void("v", "a"), void("v", "a"))
    entries = [count(state, [record], REGISTRY, log_of(log)) for record in log]
    assert [batch.entry.accepted for batch in entries] == [1, 1, 0]
    assert entries[2].entry.duplicates == 1
    assert windows(*(batch.entry for batch in entries)) == {}


def test_another_tenants_event_cannot_be_corrected() -> None:
    state = partition_in_memory()
    log = records_of(usage("a", subject="globex"))
    count(state, log, OTHER)
    batch = count(state, records_of(void("v", "a"), first=1), OTHER, log_of(log))
    assert [letter.code for letter, _ in batch.dead_letters] == ["unknown_event"]


def test_a_twin_that_counts_otherwise_is_a_conflict_and_the_first_wins() -> None:
    state = partition_in_memory()
    array = b"[" + b",".join([usage("a", 11), usage("b", 1), usage("b", 2)]) + b"]"
    first = count(state, records_of(usage("a", 10), array), REGISTRY)
    second = count(
        state, records_of(usage("a", 10, model="n"), usage("a", 10, time="2023-11-16T18:11:00Z"), first=2), REGISTRY
    )
    letters = [(letter.code, letter.offset, letter.index) for letter, _ in first.dead_letters + second.dead_letters]
    assert letters == [("conflict", 1, 0), ("conflict", 1, 2), ("conflict", 2, -1)]
    assert [json.loads(letter.body or b"")["data"]["tokens"] for letter, _ in first.dead_letters] == [11, 2]
    # Another time alone is a retry that was stamped again.
    assert (first.entry.accepted, second.entry.duplicates) == (2, 1)
    assert windows(first.entry, second.entry)["tokens", ("m",)] == (11, 2)


def test_a_backfill_adds_events_however_old_and_each_only_once() -> None:
    state = partition_in_memory()
    items = [
        {"id": "o1", "type": "llm", "time": "2021-02-01T00:00:00Z", "data": {"tokens": 5, "model": "m", "user": "u"}},
        {"id": "o2", "type": "llm", "time": "2021-02-28T23:59:59Z", "data": {"tokens": 7, "model": "m", "user": "w"}},
        {"id": "o3", "type": "llm", "time": "2021-03-01T00:00:00Z", "data": {"tokens": 9, "model": "m"}},
        {"id": "o1", "type": "llm", "time": "2021-02-01T00:00:00Z", "data": {"tokens": 5, "model": "m", "user": "u"}},
    ]
    record = backfill("f", items, "2021-02-01T00:00:00Z", "2021-03-01T00:00:00Z")
    first = count(state, records_of(record), REGISTRY)
    again = count(state, records_of(record, first=1), REGISTRY)
    assert (first.entry.accepted, first.entry.duplicates, first.entry.refused) == (2, 1, [(0, 2)])
    assert [(letter.code, letter.index) for letter, _ in first.dead_letters] == [("outside_range", 2)]
    assert (again.entry.accepted, again.entry.duplicates) == (0, 3)
    assert windows(first.entry, again.entry)["tokens", ("m",)] == (12, 2)
    assert [(row.kind, row.range_us[0]) for row in first.entry.corrections] == [("backfill", 1_612_137_600_000_000)]
    # An event of a backfill is corrected like any other.
    undone = count(state, records_of(void("v", "o2"), first=2), REGISTRY, log_of(records_of(record))).entry
    assert windows(first.entry, again.entry, undone)["tokens", ("m",)] == (5, 1)


def test_a_backfill_inside_an_array_is_refused() -> None:
    state = partition_in_memory()
    inner = backfill(
        "f", [{"id": "1", "type": "llm", "time": "x", "data": {}}], "2021-02-01T00:00:00Z", "2021-03-01T00:00:00Z"
    )
    batch = count(state, records_of(b"[" + inner + b"," + usage("a") + b"]"), REGISTRY)
    assert [(letter.code, letter.index) for letter, _ in batch.dead_letters] == [("backfill_in_batch", 0)]
    assert batch.entry.accepted == 1


def test_a_meter_that_did_not_count_an_event_loses_nothing_by_its_void() -> None:
    state = partition_in_memory()
    young = Registry.of(["acme"], METERS[:1])
    log = records_of(usage("a", 10), usage("b", 20))
    first = count(state, log, young).entry
    assert first.activated == {"tokens": 0}
    second = count(state, records_of(usage("c", 30), void("v", "a"), first=2), REGISTRY, log_of(log)).entry
    assert second.activated == {meter.meter_id: 2 for meter in METERS[1:]}
    assert windows(first, second) == {("tokens", ("m",)): (50, 2), ("calls", ()): (1, 1)}
    assert live(first, second)["peak"] == (30, 1)


def test_a_meters_backfill_makes_it_counted_from_the_start() -> None:
    state = partition_in_memory()
    log = records_of(usage("a", 10), usage("b", 20))
    first = count(state, log, Registry.of(["acme"], METERS[:1])).entry
    second = count(state, records_of(usage("c", 30), first=2), REGISTRY).entry

    def part(number: int, meter: str, measures: list[Any], last: bool, before: int = 2) -> bytes:
        data = {"meter": meter, "before": before, "last": last, "measures": measures}
        return cloud_event(f"backfill-{meter}-0-{number}", "meterbook.meter.backfill", data, source="meterbook")

    parts = records_of(
        part(1, "calls", [[[], MINUTE * 1_000_000, "2", 2, 0]], True),
        part(1, "peak", [[["m"], MINUTE * 1_000_000, "10", 0, 0]], False),
        part(1, "peak", [[["m"], MINUTE * 1_000_000, "10", 0, 0]], False),
        part(2, "peak", [[["m"], MINUTE * 1_000_000, "20", 1, 0]], True),
        part(3, "peak", [[["m"], MINUTE * 1_000_000, "20", 1, 0]], True, before=2),
        first=3,
    )
    third = count(state, parts[:4], REGISTRY)
    late = count(state, parts[4:], REGISTRY)
    assert third.entry.activated == {"calls": 0, "peak": 0}
    assert (third.entry.accepted, third.entry.duplicates, third.dead_letters) == (3, 1, [])
    # It is counted from the start now, so another part for the time before is a mistake.
    assert [letter.code for letter, _ in late.dead_letters] == ["invalid_correction"]
    assert windows(first, second, third.entry)["calls", ()] == (3, 3)
    undone = count(
        state,
        records_of(void("v", "c"), void("w", "b"), first=8),
        REGISTRY,
        log_of(log + records_of(usage("c", 30), first=2)),
    ).entry
    assert live(first, second, third.entry, undone)["peak"] == (10, 1)
    assert windows(first, second, third.entry, undone)["calls", ()] == (1, 1)


def test_a_void_is_late_when_its_window_is_closed() -> None:
    state = partition_in_memory()
    log = records_of(usage("a", 10, time="2023-11-16T10:00:00Z"), usage("b", 10, time="2023-11-16T18:00:00Z"))
    first = count(state, log[:1], REGISTRY).entry
    count(state, log[1:], REGISTRY)
    entry = count(state, records_of(void("v", "a"), first=2), REGISTRY, log_of(log)).entry
    late = {(row.meter, row.quantity, row.events) for row in entry.late}
    assert first.late == []
    assert late == {("tokens", str(-10 * UNIT), -1), ("calls", str(-UNIT), -1), ("peak", "0", -1), ("users", "0", -1)}


def test_an_original_that_the_warehouse_cannot_tell_now_is_put_aside_to_be_replayed() -> None:
    state = partition_in_memory()

    def away(targets: Any, registry: Registry) -> Any:
        return dict.fromkeys(targets, Original(None, -1, 0, is_unavailable=True))

    def corrected(targets: Any, registry: Registry) -> Any:
        return dict.fromkeys(targets, Original(None, -1, 0, is_corrected=True))

    letters = count(state, records_of(void("v", "old")), REGISTRY, away).dead_letters
    letters += count(state, records_of(void("v", "old"), first=1), REGISTRY, corrected).dead_letters
    assert [letter.code for letter, _ in letters] == ["original_unavailable", "already_corrected"]


NUMBERS = st.integers(0, 12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), NUMBERS, st.integers(0, 900), st.sampled_from("mn"), st.sampled_from("abc")),
        st.tuples(st.just("void"), NUMBERS, st.integers(0, 25), st.just("m"), st.just("a")),
        st.tuples(st.just("amend"), NUMBERS, st.integers(0, 25), st.sampled_from("mn"), st.sampled_from("abc")),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_totals_are_those_of_what_is_left_however_the_records_are_cut(steps: Any, rng: Any) -> None:
    """Corrections name events e0 to e12 or amends, which are called x and their step, so that those are named, too."""
    alive: dict[str, tuple[int, str, str]] = {}
    seen: set[str] = set()
    values = []
    for step, (kind, number, other, model, user) in enumerate(steps):
        name = f"e{number}"
        if kind == "use":
            values.append(usage(name, other, model, user))
            if name not in seen:
                seen.add(name)
                alive[name] = other, model, user
            continue
        target = name if other < 13 else f"x{other - 13}"
        if kind == "void":
            values.append(void(f"v{step}", target))
            alive.pop(target, None)
        else:
            values.append(amend(f"x{step}", target, "llm", {"tokens": other, "model": model, "user": user}))
            if alive.pop(target, None) is not None:
                seen.add(f"x{step}")
                alive[f"x{step}"] = other, model, user
    records = records_of(*values)
    state, entries, left = partition_in_memory(), [], records
    while left:
        cut = rng.randint(1, len(left))
        entries.append(decode_entry(encode_entry(count(state, left[:cut], REGISTRY, log_of(records)).entry)))
        left = left[cut:]
        if rng.random() < 0.3:
            state = partition_in_memory()
            for version, entry in enumerate(entries):
                state.restore(version, entry, REGISTRY)
    expected: Counter[str] = Counter()
    for tokens, model, _ in alive.values():
        expected[f"tokens:{model}"] += tokens
        expected["calls"] += 1
        expected["large"] += tokens >= 500
    found = windows(*entries)
    assert {model: found.get(("tokens", (model,)), (0, 0))[0] for model in "mn"} == {
        m: expected[f"tokens:{m}"] for m in "mn"
    }
    assert found.get(("calls", ()), (0, 0))[0] == expected["calls"]
    assert found.get(("large", ()), (0, 0))[0] == expected["large"]
    totals = live(*entries)
    assert totals.get("peak", (0, 0))[0] == max((tokens for tokens, _, _ in alive.values()), default=0)
    assert totals.get("users", (0, 0))[0] == len({user for _, _, user in alive.values()})
