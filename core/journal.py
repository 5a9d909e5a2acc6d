"""The journal: one record per micro-batch and source partition, with all that it changed. Owns its binary form.

The meter worker's state is a function of these records, and so is what every sink writes: values are absolute, so
reading one again changes nothing. Offsets chain (`previous_last`, `first`, `last`): a reader can tell a gap or
a fork. Quantities are decimal strings of the scaled integer (`core.quantity`): msgpack's integers end at 64 bit.
"""

from __future__ import annotations

import msgspec

from core.errors import BrokenInvariantError

FORMAT = 1


class WindowRow(msgspec.Struct, array_like=True, gc=False):
    """A minute window after this micro-batch: totals of one segment, absolute.

    `start` is whole seconds since 1970 UTC; a window that was put out of memory and is touched again opens a new
    segment (named by the source offset that opened it), and a window's value is the sum over segments.
    """

    tenant: str
    meter: str
    dimensions: tuple[str, ...]
    start: int
    segment: int
    quantity: str
    events: int


class PeriodRow(msgspec.Struct, array_like=True, gc=False):
    """A tenant's total of a meter in a calendar month (`2026-10`) or hour (`2026-10-31T07`) of UTC, absolute.

    Segments as with windows: the period's value is the sum over them.
    """

    tenant: str
    meter: str
    period: str
    segment: int
    quantity: str
    events: int


class JournalEntry(msgspec.Struct, array_like=True, gc=False):
    """What one micro-batch of one source partition changed.

    `identities` are the accepted events' 16-byte identities, one after another. `refused` lists (offset, index) of
    events that were not accepted here: dead letters and events sent on to their own partition. `received_ms` is the
    newest broker append time of the batch, `oldest_received_ms` the oldest, `dimension_names` the names behind each
    meter's dimension values.
    """

    format: int
    previous_last: int
    first: int
    last: int
    owner: str
    oldest_received_ms: int
    received_ms: int
    accepted: int
    duplicates: int
    rejected: int
    identities: bytes
    windows: list[WindowRow]
    periods: list[PeriodRow]
    refused: list[tuple[int, int]]
    dimension_names: dict[str, tuple[str, ...]]


_decoder = msgspec.msgpack.Decoder(JournalEntry)
_encoder = msgspec.msgpack.Encoder()


def encode_entry(entry: JournalEntry) -> bytes:
    """Return the entry's bytes."""
    return _encoder.encode(entry)


def decode_entry(raw: bytes) -> JournalEntry:
    """Read an entry; raises `BrokenInvariantError`, for only our own worker writes this topic."""
    try:
        entry = _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise BrokenInvariantError(f"a journal record cannot be read: {error}") from None
    if entry.format != FORMAT:
        raise BrokenInvariantError(f"journal format {entry.format} is not the known {FORMAT}")
    return entry
