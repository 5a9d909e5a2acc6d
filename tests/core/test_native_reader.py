"""The C part of the hot path against the Python that defines it: the same answer, or none. Left out without a compiler.

`make setup` builds it where there is one; `test_it_is_built_where_a_compiler_is` fails if that stops working.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core import native
from core.journal import LateRow, WindowRow
from core.meters import Filter, Meter, Registry
from core.usage_event import IngestLimits, UsageEvent, decode_batch, parse_event, split_batch
from streams.domain.add_up import add_up_in_python, judged
from streams.domain.cells import Cell, WindowKey
from streams.domain.fold import fold, fold_in_python
from streams.domain.ordinary_events import OrdinaryEvents
from tests.streams.in_memory import Record

RECEIVED_US = 1_700_158_800_000_000  # 2023-11-16T18:20:00Z
REGISTRY = Registry.of(
    ["acme", "globex"],
    [
        Meter("input", "token", "llm", "sum", "input", ("model", "region")),
        Meter("output", "token", "llm", "sum", "output", ("model",)),
        Meter("mean", "token", "llm", "average", "output"),
        Meter("runs", "run", "run", "count", None, ("kind",)),
        Meter("peak", "seat", "seats", "max", "seats"),
        Meter("eu", "call", "call", "count", None, filters=(Filter("region", "eq", ("eu",)),)),
    ],
)
LIMITS = IngestLimits(max_bytes=3_000)
GOOD = {
    "specversion": "1.0",
    "id": "e1",
    "source": "kernel",
    "type": "llm",
    "subject": "acme",
    "time": "2023-11-16T18:19:30Z",
    "data": {"input": 3, "output": "0.25", "model": "gpt4", "region": "eu"},
}
needs_reader = pytest.mark.skipif(native.reader is None, reason="the C part was not built: no compiler here")


def ordinary() -> OrdinaryEvents:
    """Return a reader that knows the subjects of both tenants."""
    reader = OrdinaryEvents(REGISTRY, LIMITS)
    for subject in ("acme", "acme/customer-9", "globex"):
        event = parse_event(json.dumps({**GOOD, "subject": subject}).encode(), REGISTRY, LIMITS, RECEIVED_US)
        assert isinstance(event, UsageEvent)
        reader.learn(event)
    return reader


def agree(raw: bytes) -> bool:
    """Compare both readings of one event; returns whether the C part knew it."""
    reader = ordinary()
    short = reader._reader.read(raw, RECEIVED_US)
    events: list[Any] = []
    places: list[int] = []
    number = reader.read_records([Record(1_005, RECEIVED_US // 1_000, None, raw)], 0, 9, 1_000, events, places)
    assert (events, places, number) == (([], [], 0) if short is None else ([short], [5 << 14], 1))
    if short is None:
        return False
    long = parse_event(raw, REGISTRY, LIMITS, RECEIVED_US)
    assert isinstance(long, UsageEvent), (raw, long)
    assert short == judged(long)
    assert [type(part) for part in short] == [type(part) for part in judged(long)]
    return True


@pytest.mark.skipif(
    shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="no C compiler here",
)
def test_it_is_built_where_a_compiler_is() -> None:
    assert native.reader is not None, "run `make setup`: pip builds core/native/reader.c"


@needs_reader
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"subject": "acme/customer-9"},
        {"type": "run", "data": {}},
        {"type": "run", "data": {"kind": None}},
        {"time": "2023-11-16T18:19:59.999999999Z"},
        {"time": "2023-11-16T18:19:59.1Z"},
        {"time": "2023-10-29T00:00:00Z"},
        {"id": " ~!@ " * 51},
        {"data": {"input": 0, "output": 999_999_999_999_999}},
        {"data": {"input": "007", "output": None}},
        {"data": {"output": "123456789012345.123456789012"}},
        {"datacontenttype": "application/json", "traceparent": None, "sequence": 7, "flag": True},
    ],
)
def test_ordinary_events_are_known_and_read_alike(changes: dict[str, Any]) -> None:
    assert agree(json.dumps({**GOOD, **changes}).encode())
    assert agree(json.dumps({**GOOD, **changes}, indent=2).encode() + b"\n ")


@needs_reader
@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": "0.3"},
        {"id": ""},
        {"id": "x" * 257},
        {"id": "größe"},
        {"id": 'a"b'},
        {"source": "a\nb"},
        {"subject": "nobody"},
        {"subject": "acme/other"},
        {"type": "unknown"},
        {"type": "seats", "data": {"seats": 4}},
        {"type": "call", "data": {"region": "eu"}},
        {"type": "meterbook.usage.void"},
        {"time": "2023-11-16T18:19:60Z"},
        {"time": "2023-02-29T00:00:00Z"},
        {"time": "2023-11-16T18:19:30+00:00"},
        {"time": "2023-11-16T18:25:00.000001Z"},
        {"time": "2023-10-12T18:19:59Z"},
        {"data": {"model": "gpt4"}},
        {"data": {"input": -1}},
        {"data": {"input": True}},
        {"data": {"input": 10**15}},
        {"data": {"input": "1e3"}},
        {"data": {"input": "1."}},
        {"data": {"input": " 1"}},
        {"data": {"input": "0.1234567890123"}},
        {"data": {"input": 1, "model": 7}},
        {"data": {"input": 1, "nested": {}}},
        {"data": {"input": 1, "model": "m" * 257}},
        {"data": []},
        {"extra": {"a": 1}},
        {"data": {"input": 1, "long": "x" * 3_000}},
    ],
)
def test_whatever_is_out_of_the_ordinary_is_handed_back(changes: dict[str, Any]) -> None:
    assert not agree(json.dumps({**GOOD, **changes}, ensure_ascii=False).encode())


@needs_reader
@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"{}", b"[]", b"null", b'{"id":"e1"', json.dumps(GOOD).encode() + b"x", json.dumps(GOOD).encode()[:-1],
     json.dumps(GOOD).replace('"e1"', '"e1","id":"e2"').encode(), json.dumps(GOOD).replace("3,", "03,").encode(),
     json.dumps(GOOD).replace("3,", "3.,").encode(), json.dumps(GOOD).replace("3,", "3e1,").encode(),
     json.dumps(GOOD).replace("}}", "},}").encode(), json.dumps(GOOD).replace("}}", ",}}").encode()],
)  # fmt: skip
def test_broken_json_is_handed_back(raw: bytes) -> None:
    assert not agree(raw)


NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F), max_size=30)
VALUES = st.one_of(
    NAMES,
    st.integers(-5, 10**16),
    st.decimals(0, 10**15, places=3).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.none(),
    st.booleans(),
    st.floats(0, 10**6),
    st.lists(st.integers(), max_size=2),
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "specversion": st.sampled_from(["1.0", "1"]),
        "id": NAMES,
        "source": NAMES,
        "type": st.sampled_from(["llm", "run", "seats", "call", "other"]),
        "subject": st.sampled_from(["acme", "globex", "acme/customer-9", "acme/x", "nobody"]),
        "time": st.one_of(
            st.datetimes().map(lambda at: at.isoformat() + "Z"),
            st.integers(0, 59).map(lambda second: f"2023-11-16T18:19:{second:02}.{second}Z"),
        ),
        "data": st.dictionaries(st.sampled_from(["input", "output", "model", "region", "kind", "x"]), VALUES),
        "extra": VALUES,
    },
)


@needs_reader
@pytest.mark.slow
@settings(max_examples=1_500, deadline=None)
@given(EVENTS, st.booleans())
def test_both_read_any_event_alike(changes: dict[str, Any], ascii_only: bool) -> None:
    agree(json.dumps({**GOOD, **changes}, ensure_ascii=ascii_only).encode())


@needs_reader
@pytest.mark.slow
@settings(max_examples=1_500, deadline=None)
@given(EVENTS, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3), st.integers(0, 400))
@example({}, [], 0)
def test_both_read_any_damaged_event_alike(changes: dict[str, Any], damage: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(json.dumps({**GOOD, **changes}).encode())
    for place, byte in damage:
        raw[place % len(raw)] = byte
    agree(bytes(raw[: len(raw) - cut] if cut < len(raw) else raw))


@needs_reader
@settings(deadline=None)
@given(st.lists(EVENTS, max_size=5), st.sampled_from([b",", b" , \n", b",,", b""]))
def test_both_read_any_array_alike(changes: list[dict[str, Any]], comma: bytes) -> None:
    raw = b"[" + comma.join(json.dumps({**GOOD, **change}).encode() for change in changes) + b"]"
    short = ordinary().read_array(raw, RECEIVED_US)
    if short is None:
        return
    items = split_batch(raw)
    assert isinstance(items, list)
    assert decode_batch(raw, LIMITS) is not None
    long = [parse_event(item, REGISTRY, LIMITS, RECEIVED_US) for item in items]
    assert short == [judged(event) for event in long if isinstance(event, UsageEvent)]
    assert len(short) == len(long)


@needs_reader
def test_an_array_of_ordinary_events_is_read_whole() -> None:
    raw = json.dumps([{**GOOD, "id": str(number)} for number in range(8)]).encode()
    found = ordinary().read_array(raw, RECEIVED_US)
    assert found is not None
    assert len(found) == 8
    assert ordinary().read_array(raw.replace(b'"7"', b'""'), RECEIVED_US) is None


@needs_reader
def test_names_beyond_what_its_tables_hold_are_read_all_the_same() -> None:
    reader = ordinary()
    for number in range(9_000):
        raw = json.dumps({**GOOD, "data": {"input": 1, "model": f"model-{number}"}}).encode()
        found = reader._reader.read(raw, RECEIVED_US)
        assert found is not None
        assert found[4] == [("input", (f"model-{number}", ""), 10**12)]


@needs_reader
def test_records_are_read_until_there_are_enough_or_one_is_not_ordinary() -> None:
    ordinary_event, other = json.dumps(GOOD).encode(), b"[]"
    values = [ordinary_event, ordinary_event, None, ordinary_event, other, ordinary_event]
    records = [Record(10 + number, RECEIVED_US // 1_000, None, value) for number, value in enumerate(values)]
    events: list[Any] = []
    places: list[int] = []
    reader = ordinary()
    assert reader.read_records(records, 0, 9, 10, events, places) == 2
    assert reader.read_records(records, 3, 3, 10, events, places) == 4
    assert reader.read_records(records, 5, 3, 10, events, places) == 5
    assert (len(events), places) == (3, [0, 1 << 14, 3 << 14])
    for wrong in [(records, -1, 9, 0, [], []), ((), 0, 9, 0, [], []), ([object()], 0, 9, 0, [], []), (records, 0, 9)]:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            reader.read_records(*wrong)


EVENT = st.tuples(
    st.sampled_from(["acme", "globex"]),
    st.integers(RECEIVED_US - 10**9, RECEIVED_US),
    st.integers(0, 12).map(lambda number: bytes([number]) * 16),
    st.integers(0, 1),
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from([(), ("m",)]),
            st.one_of(st.integers(0, 10**13), st.just(2**90)),
        ),
        max_size=3,
    ),
).map(lambda event: event if event[3] else (*event, [("users", (), "ann")]))
KNOWN = st.dictionaries(st.integers(0, 12).map(lambda number: bytes([number]) * 16), st.integers(0, 1), max_size=4)


@needs_reader
@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(EVENT, max_size=30), KNOWN, st.dictionaries(st.integers(0, 29), st.integers(0, 1), max_size=4))
def test_both_add_up_alike(events: list[Any], recent: dict[bytes, int], old: dict[int, int]) -> None:
    outcomes = []
    for add_up in (add_up_in_python, native.reader.add_up):
        identities: dict[bytes, int] = {}
        accepted: list[int] = []
        windows: dict[Any, list[int]] = {}
        places = list(range(0, 3 * len(events), 3))
        answer = add_up(events, places, recent, old, identities, accepted, windows, 7)
        outcomes.append((answer, list(identities.items()), accepted, windows))
    assert outcomes[0] == outcomes[1]


# Starts on both sides of quarter hours and of 1970, close enough together for many to meet in one.
WINDOWS = st.tuples(
    st.sampled_from(["acme", "globex"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([(), ("m",), ("m", "")]),
    st.one_of(
        st.integers(-20, 20),
        st.integers(28_335_980, 28_336_020),
        # Quarter hours that share a place among the sums added to lately.
        st.integers(0, 3).map(lambda times: 28_336_000 + times * 256 * 15),
    ).map(lambda minute: 60 * minute),
)
AMOUNTS = st.one_of(st.integers(-(10**13), 10**13), st.sampled_from([0, 2**63 - 1, -(2**63), 10**38 - 1, -(10**38)]))
SUMS = st.tuples(AMOUNTS, st.integers(-3, 2**40))
CELLS = st.builds(Cell, st.integers(0, 2**63), AMOUNTS, st.integers(-3, 2**40), st.integers(0, 9))
CLOSED = st.fixed_dictionaries(
    {meter: st.one_of(st.integers(-1_200, 1_200), st.just(28_336_000 * 60)) for meter in ("a", "b")}
)


@needs_reader
@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(st.dictionaries(WINDOWS, SUMS, max_size=40), st.dictionaries(WINDOWS, CELLS, max_size=20), CLOSED)
def test_both_fold_alike(
    sums: dict[WindowKey, tuple[int, int]], open_before: dict[WindowKey, Cell], closed_before: dict[str, int]
) -> None:
    outcomes = []
    for folding in (fold_in_python, fold):
        cells = {
            key: Cell(cell.segment, cell.quantity, cell.events, cell.touched_ms) for key, cell in open_before.items()
        }
        # Some names are another object that says the same, as those of events that were read in another way are.
        measured = {
            ("".join(list(tenant)) if start % 420 == 0 else tenant, meter, dimensions, start): list(added)
            for (tenant, meter, dimensions, start), added in sums.items()
        }
        windows, late, slots = folding(measured, cells, closed_before, 17, 1_700_158_800_123)
        assert measured == {key: list(added) for key, added in sums.items()}
        outcomes.append((windows, late, list(slots.items()), list(cells.items())))
    assert fold is not fold_in_python
    assert outcomes[0] == outcomes[1]


@needs_reader
def test_what_cannot_be_folded_is_an_error() -> None:
    key = ("acme", "a", (), 60)
    types = (Cell, WindowRow, LateRow)
    for wrong in [
        {("acme", "a", ()): [1, 1]},
        {7: [1, 1]},
        {key: (1, 1)},
        {key: [1]},
        {("acme", "a", (), "x"): [1, 1]},
    ]:
        with pytest.raises(TypeError):
            native.reader.fold(wrong, {}, {"a": 0}, 1, 1, *types)
    with pytest.raises(KeyError):
        native.reader.fold({key: [1, 1]}, {}, {}, 1, 1, *types)
    with pytest.raises(OverflowError):
        native.reader.fold({("acme", "a", (), 1 << 70): [1, 1]}, {}, {"a": 0}, 1, 1, *types)
    with pytest.raises(TypeError):
        native.reader.fold({key: ["1", 1]}, {key: Cell(1, 1, 1, 1)}, {"a": 0}, 1, 1, *types)
    with pytest.raises(AttributeError):
        native.reader.fold({key: [1, 1]}, {key: object()}, {"a": 0}, 1, 1, *types)
    with pytest.raises(TypeError):
        native.reader.fold({key: [1, 1]}, {}, {"a": 100}, 1, 1, Cell, WindowRow, None)


@needs_reader
def test_its_arguments_are_checked() -> None:
    reader = ordinary()
    for wrong in [("text", 1), (b"{}", "now"), (b"{}",), (None, 1)]:
        with pytest.raises(TypeError):
            reader._reader.read(*wrong)
    with pytest.raises(OverflowError):
        reader._reader.read(b"{}", 1 << 70)
    for types in [
        {"llm": ((1, "x", ()),)},
        {"llm": (("m", "x", [1]),)},
        {"llm": "no"},
        {1: ()},
        {"llm": (("m", 7, ()),)},
    ]:
        with pytest.raises(TypeError):
            native.reader.Reader(types, {}, 1, 1, 1, 1, 1, 1)
    assert Decimal(reader._reader.read(json.dumps(GOOD).encode(), RECEIVED_US)[4][1][2]) == Decimal("0.25") * 10**12  # type: ignore[index]
