"""Rows of the warehouse: absolute, the first record of an identity wins, what was refused is left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from core.errors import BrokenInvariantError
from core.journal import FORMAT, JournalEntry, WindowRow
from streams.domain.warehouse_rows import EVENT_COLUMNS, ROLLUP_COLUMNS, event_rows, rollup_rows, source_range


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def entry(first: int, last: int, *, windows: Any = (), refused: Any = ()) -> JournalEntry:
    return JournalEntry(
        FORMAT, first - 1, first, last, "w", 1, 2, 1, 0, 0, b"", list(windows), [], list(refused),
        {"tokens": ("model", "region"), "runs": ()},
    )  # fmt: skip


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "gateway/1",
        "type": "llm",
        "subject": "acme/customer 9",
        "time": "2026-10-31T09:29:59.9999999+02:00",
        "data": {"tokens": 5},
        **changes,
    }


def dumps(found: Any) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode()


def rows_of(covered: JournalEntry, record: Record) -> list[dict[str, Any]]:
    found = event_rows(source_range(7, covered), record)
    return [dict(zip(EVENT_COLUMNS, row, strict=True)) for row in found]


def test_a_window_becomes_a_row_with_named_dimensions_and_an_exact_quantity() -> None:
    window = WindowRow("acme", "tokens", ("gpt4", ""), 1_793_431_740, 17, "1234567890123456789012345678901234567", 3)
    [row] = rollup_rows(7, 99, entry(17, 20, windows=[window]))
    assert dict(zip(ROLLUP_COLUMNS, row, strict=True)) == {
        "tenant": "acme",
        "meter": "tokens",
        "dimensions": {"model": "gpt4", "region": ""},
        "window_start": datetime(2026, 10, 31, 7, 29, tzinfo=UTC),
        "source_partition": 7,
        "segment": 17,
        "quantity": Decimal("1234567890123456789012345.678901234567"),
        "events": 3,
        "version": 99,
    }


def test_a_window_with_other_dimensions_than_its_meter_stops_the_work() -> None:
    window = WindowRow("acme", "tokens", ("gpt4",), 1_793_431_740, 17, "1", 1)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        rollup_rows(7, 99, entry(17, 20, windows=[window]))


def test_an_event_becomes_a_row_with_its_data_byte_for_byte() -> None:
    raw = dumps(event(1)).replace(b'"tokens":5', b'"tokens": 0.10, "t\\u00e9xt":"\xe2\x82\xac"')
    [row] = rows_of(entry(5, 5), Record(5, 1_793_431_799_123, None, raw))
    assert row["data"] == '{"tokens": 0.10, "t\\u00e9xt":"€"}'
    assert (row["tenant"], row["customer"], row["source"], row["id"]) == ("acme", "customer 9", "gateway/1", "e1")
    assert row["time"] == datetime(2026, 10, 31, 7, 29, 59, 999_999, tzinfo=UTC)
    assert row["received_at"] == datetime(2026, 10, 31, 7, 29, 59, 123_000, tzinfo=UTC)
    assert (row["source_partition"], row["source_offset"], row["source_index"]) == (7, 5, 0)


def test_earlier_records_and_earlier_elements_have_the_newer_version() -> None:
    covered = entry(0, 10**12)
    batch = dumps([event(1), event(2), event(3)])
    versions = [
        row["version"]
        for offset in (0, 1, 2, 10**9, 10**9 + 1)
        for row in rows_of(covered, Record(offset, 1, None, batch))
    ]
    assert versions == sorted(versions, reverse=True)
    assert len(set(versions)) == 15
    assert all(0 < version < 2**64 for version in versions)


def test_refused_elements_and_records_are_left_out() -> None:
    covered = entry(3, 6, refused=[(3, 1), (4, -1), (5, -1)])
    batch = b"[" + dumps(event(1)) + b', "poison", ' + dumps(event(2)) + b"]"
    assert [row["source_index"] for row in rows_of(covered, Record(3, 1, None, batch))] == [0, 2]
    assert rows_of(covered, Record(4, 1, None, b"poison")) == []
    assert rows_of(covered, Record(5, 1, None, None)) == []
    assert [row["id"] for row in rows_of(covered, Record(6, 1, None, dumps(event(3))))] == ["e3"]


@pytest.mark.parametrize(
    "record",
    [
        Record(2, 1, None, dumps(event(1))),
        Record(7, 1, None, dumps(event(1))),
        Record(5, 1, None, None),
        Record(5, 1, None, b"[1,"),
        Record(5, 1, None, dumps(event(1, time="yesterday"))),
    ],
    ids=["before the range", "after the range", "tombstone", "unreadable batch", "unreadable time"],
)
def test_what_the_worker_cannot_have_accepted_stops_the_work(record: Record) -> None:
    with pytest.raises(BrokenInvariantError):
        event_rows(source_range(0, entry(3, 6)), record)
