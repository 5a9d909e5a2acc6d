"""A header's name that is not UTF-8 is a record like any other: read, not fatal."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from runtime.odd_headers import read_any_header_name

PLACE = TopicPartition("usage.events", 0)


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    monkeypatch.setattr(fetcher.PartitionRecords, "__next__", fetcher.PartitionRecords.__next__)
    read_any_header_name()
    read_any_header_name()


def batch(first: int, count: int, *, odd: int | None = None, compression: int = 0) -> bytes:
    """Return a record batch; the record numbered `odd` has a header name of which a byte is spoiled afterwards."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 100_000)
    for number in range(count):
        headers = [("xyzzy", b"value")] if number == odd else [("good", None)]
        builder.append(number, timestamp=5, key=b"k", value=b"value-%d" % (first + number), headers=headers)
    raw = bytearray(bytes(builder.build()).replace(b"xyzzy", b"xy\xff\xfey"))
    raw[0:8] = first.to_bytes(8, "big")
    return bytes(raw)


def read(raw: bytes, *, start: int = 0) -> list[Any]:
    records = fetcher.MemoryRecords(raw)
    # The checksum no longer fits what was spoiled.
    return list(fetcher.PartitionRecords(PLACE, records, [], start, None, None, False, 1))


@pytest.mark.parametrize("position", [0, 3, 6])
def test_every_record_is_read_once_and_in_order(position: int) -> None:
    raw = batch(0, 5) + batch(5, 7, odd=position) + batch(12, 3)
    found = read(raw)
    assert [record.offset for record in found] == list(range(15))
    assert [record.value for record in found] == [b"value-%d" % number for number in range(15)]
    assert found[5 + position].headers == (("xy\\xff\\xfey", b"value"),)
    assert found[14].headers == (("good", None),)


def test_reading_goes_on_where_it_was_asked_to() -> None:
    assert [record.offset for record in read(batch(0, 4, odd=1) + batch(4, 4, odd=0), start=3)] == [3, 4, 5, 6, 7]


def test_ordinary_records_are_read_as_before() -> None:
    found = read(batch(0, 3))
    assert [(record.offset, record.key, record.headers) for record in found] == [
        (number, b"k", (("good", None),)) for number in range(3)
    ]
