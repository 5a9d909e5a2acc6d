"""Rows of the warehouse: absolute, the first record of an identity wins, what was refused is left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from core.errors import BrokenInvariantError
from core.journal import FORMAT, CorrectionRow, JournalEntry, LateRow, SampleRow, WindowRow
from streams.domain.warehouse_rows import COLUMNS, event_rows, journal_rows, source_range

DAY_US = 1_793_404_800_000_000  # 2026-10-31


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def entry(first: int, last: int, **changes: Any) -> JournalEntry:
    parts: dict[str, Any] = {
        "format": FORMAT, "previous_last": first - 1, "first": first, "last": last, "owner": "w",
        "oldest_received_ms": 1, "received_ms": 2_000, "accepted": 1, "duplicates": 0, "rejected": 0,
        "identities": b"", "digests": b"", "places": b"", "windows": [], "periods": [], "samples": [],
        "corrections": [], "late": [], "refused": [],
        "dimension_names": {"tokens": ("model", "region"), "runs": (), "users": ()},
        "aggregations": {"tokens": "max", "runs": "count", "users": "unique"},
        "activated": {}, "watermark_us": 0,
    }  # fmt: skip
    return JournalEntry(**{**parts, **changes})


def made(table: str, found: JournalEntry) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS[table], row, strict=True)) for row in journal_rows(7, 99, found)[table]]


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
    return [dict(zip(COLUMNS["usage_events"], row, strict=True)) for row in found]


def test_a_window_becomes_a_row_with_named_dimensions_and_an_exact_quantity() -> None:
    window = WindowRow("acme", "tokens", ("gpt4", ""), 1_793_431_740, 17, "1234567890123456789012345678901234567", 3)
    [row] = made("usage_rollups", entry(17, 20, windows=[window]))
    assert row == {
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
        journal_rows(7, 99, entry(17, 20, windows=[window]))


def test_a_sample_becomes_a_row_named_by_its_events_place() -> None:
    samples = [
        SampleRow("acme", "tokens", ("gpt4", "eu"), DAY_US + 1, "1500000000000", 17, -1),
        SampleRow("acme", "tokens", ("gpt4", "eu"), DAY_US + 1, "2", 18, 3, removed=True),
        SampleRow("acme", "users", (), DAY_US + 1, "007", 18, 3),
    ]
    first, second, third = made("usage_samples", entry(17, 20, samples=samples))
    assert first == {
        "tenant": "acme",
        "meter": "tokens",
        "dimensions": {"model": "gpt4", "region": "eu"},
        "time": datetime(2026, 10, 31, 0, 0, 0, 1, tzinfo=UTC),
        "source_partition": 7,
        "source_offset": 17,
        "source_index": 0,
        "quantity": Decimal("1.5"),
        "text": "",
        "removed": 0,
        "version": 99,
    }
    assert (second["quantity"], second["source_index"], second["removed"]) == (Decimal("2E-12"), 3, 1)
    assert (third["quantity"], third["text"], third["dimensions"]) == (0, "007", {})


def test_of_a_sample_put_in_and_taken_out_at_once_only_the_end_is_written() -> None:
    put = SampleRow("acme", "users", (), DAY_US, "u1", 17, -1)
    taken = SampleRow("acme", "users", (), DAY_US, "u1", 17, 0, removed=True)
    assert [row["removed"] for row in made("usage_samples", entry(17, 20, samples=[put, taken]))] == [1]


def test_a_correction_becomes_a_row_by_what_it_corrects() -> None:
    corrections = [
        CorrectionRow("acme", "void", "gateway/1", "v1", "gateway/2", "e1", "wrong host", 17, -1, 1_500),
        CorrectionRow("acme", "backfill", "s", "b1", "s", "b1", "", 18, -1, 1_500, (DAY_US, DAY_US + 1)),
    ]
    void, backfill = made("usage_corrections", entry(17, 20, corrections=corrections))
    assert void == {
        "tenant": "acme",
        "target_source": "gateway/2",
        "target_id": "e1",
        "kind": "void",
        "source": "gateway/1",
        "id": "v1",
        "reason": "wrong host",
        "range_start": datetime(1970, 1, 1, tzinfo=UTC),
        "range_end": datetime(1970, 1, 1, tzinfo=UTC),
        "received_at": datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC),
        "source_partition": 7,
        "source_offset": 17,
        "source_index": 0,
        "version": 99,
    }
    assert (backfill["target_id"], backfill["range_start"], backfill["range_end"]) == (
        "b1",
        datetime(2026, 10, 31, tzinfo=UTC),
        datetime(2026, 10, 31, 0, 0, 0, 1, tzinfo=UTC),
    )


def test_what_came_late_for_one_window_is_one_row_and_may_be_negative() -> None:
    late = [
        LateRow("acme", "tokens", ("gpt4", ""), 1_793_431_740, "-3000000000000", -1),
        LateRow("acme", "tokens", ("gpt4", ""), 1_793_431_740, "500000000000", 1),
        LateRow("acme", "runs", (), 1_793_431_740, "1000000000000", 1),
    ]
    found = made("usage_late", entry(17, 20, late=late))
    assert [(row["meter"], row["quantity"], row["events"]) for row in found] == [
        ("tokens", Decimal("-2.5"), 0),
        ("runs", Decimal(1), 1),
    ]
    assert found[0]["received_at"] == datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)


def test_from_where_a_meter_is_counted_becomes_a_row() -> None:
    assert made("meter_activations", entry(17, 20, activated={"users": 18, "runs": 0})) == [
        {"meter": "runs", "source_partition": 7, "first_offset": 0, "version": 99},
        {"meter": "users", "source_partition": 7, "first_offset": 18, "version": 99},
    ]


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


def test_a_record_in_binary_mode_is_the_event_that_its_headers_tell_of() -> None:
    attributes = {name: value for name, value in event(1).items() if name != "data"}
    headers = (("content-type", b"application/json"), *((f"ce_{k}", v.encode()) for k, v in attributes.items()))
    [row] = rows_of(entry(5, 5), Record(5, 1, None, b'{"tokens": 0.10}', headers))
    assert (row["id"], row["type"], row["data"]) == ("e1", "llm", '{"tokens": 0.10}')
    refused = Record(5, 1, None, b"\xff", headers)
    assert rows_of(entry(5, 5, refused=[(5, -1)]), refused) == []
    with pytest.raises(BrokenInvariantError):
        rows_of(entry(5, 5), refused)


def test_a_void_is_kept_as_what_it_is() -> None:
    void = event(9, type="meterbook.usage.void", data={"corrects": {"source": "gateway/1", "id": "e1"}})
    [row] = rows_of(entry(5, 5), Record(5, 1, None, dumps([void])))
    assert (row["id"], row["type"], row["customer"]) == ("e9", "meterbook.usage.void", "customer 9")
    assert json.loads(row["data"])["corrects"]["id"] == "e1"


def test_an_amend_is_kept_as_what_it_counts_instead() -> None:
    amend = event(
        9,
        type="meterbook.usage.amend",
        data={
            "corrects": {"source": "gateway/1", "id": "e1"},
            "reason": "r",
            "event": {"type": "llm", "time": "2026-09-01T00:00:00+01:00", "data": {"tokens": 6}},
        },
    )
    [row] = rows_of(entry(5, 5), Record(5, 1, None, dumps(amend).replace(b":6", b": 6.0")))
    assert (row["source"], row["id"], row["type"], row["data"]) == ("gateway/1", "e9", "llm", '{"tokens": 6.0}')
    assert row["time"] == datetime(2026, 8, 31, 23, tzinfo=UTC)


def test_a_backfill_is_its_events_with_their_index_as_position() -> None:
    inner = [
        {"id": f"b{number}", "type": "llm", "time": f"2026-09-0{number}T00:00:00Z", "data": {"tokens": number}}
        for number in (1, 2, 3)
    ]
    data = {"start": "2026-09-01T00:00:00Z", "end": "2026-10-01T00:00:00Z", "reason": "", "events": inner}
    backfill = event(9, type="meterbook.usage.backfill", data=data)
    rows = rows_of(entry(5, 5, refused=[(5, 1)]), Record(5, 1, None, dumps(backfill)))
    assert [(row["source"], row["id"], row["type"], row["source_index"]) for row in rows] == [
        ("gateway/1", "b1", "llm", 0),
        ("gateway/1", "b3", "llm", 2),
    ]
    assert rows[1]["data"] == '{"tokens":3}'
    assert rows[0]["version"] > rows[1]["version"]
    assert rows_of(entry(5, 5, refused=[(5, -1)]), Record(5, 1, None, dumps(backfill))) == []


def test_what_a_meter_counts_in_hindsight_is_no_event() -> None:
    counted = event(9, type="meterbook.meter.backfill", data={"meter": "m", "before": 1, "last": True, "measures": []})
    assert rows_of(entry(5, 5), Record(5, 1, None, dumps(counted))) == []


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
