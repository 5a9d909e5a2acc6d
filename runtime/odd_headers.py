"""Kafka allows any bytes as a header's name; aiokafka stops at one that is not UTF-8, and would stop there for ever.

`read_any_header_name` lets every consumer of this process read such a record: the odd bytes appear escaped (`\\xff`).
Private parts relied upon (aiokafka 0.14.0, pinned; tests/runtime/test_odd_headers.py fails if they move):
`fetcher.MemoryRecords`, `PartitionRecords._records`, `_records_iterator`, `_unpack_records`, `_DefaultRecordBatchPy`.
"""

from __future__ import annotations

from typing import Any

import structlog
from aiokafka.consumer import fetcher
from aiokafka.record import memory_records
from aiokafka.record.default_records import _DefaultRecordBatchPy

log = structlog.get_logger()


def read_any_header_name() -> None:
    """Patch aiokafka's fetcher; doing so again changes nothing."""
    if issubclass(fetcher.MemoryRecords, _Remembering):
        return
    fetcher.MemoryRecords = _Remembering
    original = fetcher.PartitionRecords.__next__

    def read_next(self: Any) -> Any:
        try:
            return original(self)
        except UnicodeDecodeError as error:
            log.warning("kafka.odd_header_name", error=str(error))
            # From the batch it stopped in; records of it that were handed out are skipped by their offsets.
            self._records = _Tolerant(self._records.raw, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()
            return original(self)

    fetcher.PartitionRecords.__next__ = read_next


class _Remembering(memory_records.MemoryRecords):  # type: ignore[misc]
    """Fetched records that keep their bytes, to be read once more another way."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.raw = data


class _Tolerant(memory_records._MemoryRecordsPy):  # type: ignore[misc]
    """The same records, read by aiokafka's slower parser with names that escape what is not UTF-8."""

    def __init__(self, data: bytes, first: int) -> None:
        super().__init__(data)
        self.raw = data
        while self._next_slice is not None and _DefaultRecordBatchPy(self._next_slice).next_offset <= first:
            super().next_batch()

    def next_batch(self) -> Any:
        found = self._next_slice
        batch = super().next_batch()
        if found is None or found[self.MAGIC_OFFSET] < 2:  # formats without headers
            return batch
        return _TolerantBatch(found)


class _TolerantBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: Any

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        if not isinstance(self._buffer, _Escaping):
            self._buffer = _Escaping(self._buffer)


class _Escaping(bytearray):
    """Bytes whose slices decode without ever failing."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Escaping(found) if isinstance(key, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")
