"""The meter worker: exact totals whatever order, duplicates and batching; its state is a function of the journal."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from core.journal import decode_entry, encode_entry
from core.meters import Meter, Registry
from core.quantity import UNIT
from core.usage_event import IngestLimits
from tests.streams.in_memory import BASE_MS, Record, partition_in_memory

REGISTRY = Registry.of(
    ["acme", "globex"],
    [
        Meter("input", "token", "llm", "sum", "input", ("model",)),
        Meter("output", "token", "llm", "sum", "output", ("model",)),
    ],
)
LIMITS = IngestLimits()


def body(number, tenant="acme", minute=0, quantity=1, model="m"):
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": "s",
            "type": "llm",
            "subject": tenant,
            "time": f"2023-11-16T18:{minute:02}:30Z",
            "data": {"input": quantity, "output": quantity * 2, "model": model},
        }
    ).encode()


def count(state, records):
    tally = state.judge(records, REGISTRY, LIMITS)
    return tally and state.accept(tally)


def rollups(entries):
    """Add up like a reader of the warehouse: newest version per (window, segment), then over segments."""
    newest = {}
    for entry in entries:
        for row in entry.windows:
            newest[row.tenant, row.meter, row.dimensions, row.start, row.segment] = int(row.quantity)
    totals = Counter()
    for (tenant, meter, dimensions, start, _), quantity in newest.items():
        totals[tenant, meter, dimensions, start] += quantity
    return totals


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.sampled_from(["acme", "globex"]),
        st.integers(0, 19),
        st.integers(0, 1000),
        st.sampled_from(["m", "n"]),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(EVENTS, st.randoms(use_true_random=False))
def test_totals_equal_those_of_distinct_events_however_they_are_cut(events, rng):
    state, restored, entries = partition_in_memory(), partition_in_memory(), []
    expected, seen = Counter(), set()
    for number, tenant, minute, quantity, model in events:
        if (tenant, number) not in seen:
            seen.add((tenant, number))
            start = 1_700_157_600 + minute * 60
            expected[tenant, "input", (model,), start] += quantity * UNIT
            expected[tenant, "output", (model,), start] += quantity * 2 * UNIT
    records = [
        Record(offset, BASE_MS + offset, None, body(number, tenant, minute, quantity, model))
        for offset, (number, tenant, minute, quantity, model) in enumerate(events)
    ]
    while records:
        cut = rng.randint(1, len(records))
        # What was read before may come again: a fetch after a rebalance starts at the committed offset or below.
        batch = count(state, records[:cut])
        assert count(state, records[:cut]) is None
        records = records[cut:]
        entry = decode_entry(encode_entry(batch.entry))
        entries.append(entry)
        restored.restore(len(entries) - 1, entry, REGISTRY)
        if rng.random() < 0.3:
            state, restored = restored, partition_in_memory()
            for version, old in enumerate(entries):
                restored.restore(version, old, REGISTRY)
    assert +rollups(entries) == +expected
    assert sum(entry.accepted for entry in entries) == len(seen)
    # A twin that counts otherwise is refused: the first wins, and nothing vanishes.
    assert sum(entry.accepted + entry.duplicates + entry.rejected for entry in entries) == len(events)


@given(EVENTS)
def test_period_totals_equal_the_sum_of_their_windows(events):
    state = partition_in_memory()
    entries = [
        count(state, [Record(offset, BASE_MS + offset, None, body(*event))]).entry
        for offset, event in enumerate(events)
    ]
    months = {(row.tenant, row.meter, row.period): int(row.quantity) for entry in entries for row in entry.periods}
    by_meter = Counter()
    for (tenant, meter, _, _), quantity in rollups(entries).items():
        by_meter[tenant, meter, "2023-11"] += quantity
        by_meter[tenant, meter, "2023-11-16T18"] += quantity
    assert +Counter(months) == +by_meter


def test_a_batch_record_counts_each_element_and_refuses_only_the_bad_ones():
    state = partition_in_memory()
    batch = count(state, [Record(5, BASE_MS, b"acme", b"[" + b",".join([body(1), b"{}", body(2), body(1)]) + b"]")])
    assert (batch.entry.accepted, batch.entry.duplicates, batch.entry.rejected) == (2, 1, 1)
    assert batch.entry.refused == [(5, 1)]
    [(letter, key)] = batch.dead_letters
    assert (letter.code, letter.offset, letter.index, letter.body, key) == ("missing_field", 5, 1, b"{}", b"acme")


def test_an_array_beyond_its_limits_is_refused_whole_before_it_is_taken_apart():
    state, limits = partition_in_memory(), IngestLimits(max_bytes=1_000, max_batch_bytes=2_000, max_batch_events=5)
    fits, many = b"[" + b",".join(map(body, range(5))) + b"]", b"[" + b",".join([b"1"] * 6) + b"]"
    large = b"[" + b" " * 2_000 + b"]"
    records = [Record(offset, BASE_MS, None, raw) for offset, raw in enumerate([many, fits, large, body(9)])]
    batch = state.accept(state.judge(records, REGISTRY, limits))
    assert [(letter.code, letter.index, letter.body) for letter, _ in batch.dead_letters] == [
        ("too_many_events", -1, many), ("too_large", -1, large),
    ]  # fmt: skip
    assert (batch.entry.accepted, batch.entry.refused) == (6, [(0, -1), (2, -1)])


@given(EVENTS, st.lists(st.binary(max_size=300), max_size=20))
def test_the_weight_of_a_tally_is_never_less_than_what_is_committed(events, poison):
    state = partition_in_memory(lambda tenant: 1 if tenant == "globex" else 0)
    values = [body(number, tenant, minute, quantity, model * 200) for number, tenant, minute, quantity, model in events]
    records = [Record(offset, BASE_MS, None, raw) for offset, raw in enumerate([*values, *poison])]
    tally = state.judge(records, REGISTRY, LIMITS)
    if tally is None:
        return
    weight = tally.weight
    batch = state.accept(tally)
    committed = len(encode_entry(batch.entry))
    committed += sum(
        len(letter.body or b"") + sum(len(name) + len(value) for name, value in letter.headers())
        for letter, _ in batch.dead_letters
    )
    committed += sum(len(key) + len(raw) for _, key, raw in batch.misplaced)
    assert committed <= weight + 300


def test_poison_is_put_aside_and_its_neighbours_count():
    state = partition_in_memory()
    poison = [None, b"", b"hello", b"[1,", body(1).replace(b"acme", b"nobody"), body(1).replace(b'": 1,', b'": 1e400,')]
    records = [Record(i, BASE_MS, None, raw) for i, raw in enumerate([body(10), *poison, body(11)])]
    batch = count(state, records)
    assert batch.entry.accepted == 2
    assert [letter.code for letter, _ in batch.dead_letters] == [
        "tombstone", "empty", "not_json", "not_json", "unknown_tenant", "quantity_out_of_range",
    ]  # fmt: skip
    assert [letter.body for letter, _ in batch.dead_letters] == poison


def test_a_tenants_event_on_another_partition_is_sent_home_and_not_counted_here():
    state = partition_in_memory(lambda tenant: 3 if tenant == "globex" else 0)
    batch = count(state, [Record(0, BASE_MS, None, body(1)), Record(1, BASE_MS, None, body(2, "globex"))])
    assert batch.misplaced == [(3, b"globex", body(2, "globex"))]
    assert batch.entry.accepted == 1
    assert batch.entry.refused == [(1, -1)]


def test_a_duplicate_with_another_time_is_still_a_duplicate():
    state = partition_in_memory()
    batch = count(state, [Record(0, BASE_MS, None, body(1, minute=1)), Record(1, BASE_MS, None, body(1, minute=9))])
    assert (batch.entry.accepted, batch.entry.duplicates) == (1, 1)


def test_identities_are_forgotten_only_after_the_horizon_of_received_days():
    state = partition_in_memory()
    day_ms = 86_400_000
    wide = IngestLimits(max_age_us=10**18)
    story = [(0, 1, False), (35, 1, True), (36, 2, False), (36, 1, False)]
    for offset, (day, number, duplicate) in enumerate(story):
        tally = state.judge([Record(offset, BASE_MS + day * day_ms, None, body(number))], REGISTRY, wide)
        assert state.accept(tally).entry.duplicates == duplicate


def test_a_window_put_out_of_memory_opens_a_new_segment_and_the_sum_stays_right():
    state, entries = partition_in_memory(), []
    for offset, (later_ms, number) in enumerate([(0, 1), (10 * 3_600_000, 2), (10 * 3_600_000 + 1, 3)]):
        minute = 0 if number != 2 else 1
        entries.append(count(state, [Record(offset, BASE_MS + later_ms, None, body(number, minute=minute))]).entry)
    assert {row.segment for entry in entries for row in entry.windows if row.start % 3600 == 0} == {0, 2}
    assert rollups(entries)["acme", "input", ("m",), 1_700_157_600] == 2 * UNIT


def test_a_broken_chain_stops_the_loader():
    writer, reader = partition_in_memory(), partition_in_memory()
    entries = [count(writer, [Record(i, BASE_MS, None, body(i))]).entry for i in range(3)]
    reader.restore(0, entries[0], REGISTRY)
    with pytest.raises(BrokenInvariantError, match="follows"):
        reader.restore(2, entries[2], REGISTRY)
    with pytest.raises(BrokenInvariantError):
        decode_entry(b"\x93\x01\x02")


def test_the_order_of_events_does_not_matter():
    events = [body(i % 40, minute=i % 7, quantity=i % 40) for i in range(120)]
    totals = []
    for seed in range(5):
        shuffled = events[:]
        random.Random(seed).shuffle(shuffled)
        # Duplicates carry the same minute only if i % 40 and i % 7 agree, so keep the first of each by identity.
        first = {json.loads(raw)["id"]: raw for raw in events}
        records = [Record(i, BASE_MS, None, first[json.loads(raw)["id"]]) for i, raw in enumerate(shuffled)]
        totals.append(rollups([count(partition_in_memory(), records).entry]))
    assert all(total == totals[0] for total in totals)
    assert sum(totals[0].values()) > 0
