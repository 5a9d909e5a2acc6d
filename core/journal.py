"""The journal: one record per micro-batch and source partition, with all that it changed. Owns its binary form.

The meter worker's state is a function of these records, and so is what every sink writes: values are absolute, so
reading one again changes nothing. Offsets chain (`previous_last`, `first`, `last`): a reader can tell a gap or
a fork. Quantities are decimal strings of the scaled integer (`core.quantity`): msgpack's integers end at 64 bit.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from core.errors import BrokenInvariantError

FORMAT = 2
# What a present level of a time-weighted meter is called, beside the names of periods (`core.calendar`).
PRESENT = "now"


class WindowRow(msgspec.Struct, array_like=True, gc=False):
    """A minute window of an additive meter after this micro-batch: totals of one segment, absolute.

    `start` is whole seconds since 1970 UTC; a window that was put out of memory and is touched again opens a new
    segment (named by the source offset that opened it), and a window's value is the sum over segments. A segment may
    be negative: it may have begun with a correction.
    """

    tenant: str
    meter: str
    dimensions: tuple[str, ...]
    start: int
    segment: int
    quantity: str
    events: int


class PeriodRow(msgspec.Struct, array_like=True, gc=False):
    """A tenant's total of a meter in a live period (`core.calendar` names them), absolute.

    Additive meters: segments as with windows, the period's value is the sum over them (an average: sum of quantities
    over sum of events). Sampled meters: one segment, 0; `quantity` is the number of distinct values x 10^12 (unique),
    the value itself (max, min, latest; `at_us` is when), or for time-weighted meters the exact area in 10^-12 unit x
    microseconds from the period's start until `at_us`, `level` (x 10^12) being what holds from then on.
    A sampled period that lost its last sample has `events` 0.
    """

    tenant: str
    meter: str
    period: str
    segment: int
    quantity: str
    events: int
    level: str = "0"
    at_us: int = 0


class SampleRow(msgspec.Struct, array_like=True, gc=False):
    """One value of a sampled meter: put in, or taken out again by a correction (`removed`).

    `value` is the scaled integer as a decimal string, for `unique` the distinct text itself. (`offset`, `index`) is the
    event's place in its source partition; with meter and dimensions it names the sample.
    """

    tenant: str
    meter: str
    dimensions: tuple[str, ...]
    time_us: int
    value: str
    offset: int
    index: int
    removed: bool = False


class CorrectionRow(msgspec.Struct, array_like=True, gc=False):
    """A correction that was accepted: what it is called, what it corrects (itself for a backfill), and where it stands.

    `range_us` is [start, end) in microseconds since 1970 UTC for a backfill, else (0, 0).
    """

    tenant: str
    kind: Literal["void", "amend", "backfill"]
    source: str
    id: str
    target_source: str
    target_id: str
    reason: str
    offset: int
    index: int
    received_ms: int
    range_us: tuple[int, int] = (0, 0)


class LateRow(msgspec.Struct, array_like=True, gc=False):
    """What this micro-batch added to (or took from) a window that was closed: counted, and marked for adjustment."""

    tenant: str
    meter: str
    dimensions: tuple[str, ...]
    start: int
    quantity: str
    events: int


class JournalEntry(msgspec.Struct, array_like=True, gc=False):
    """What one micro-batch of one source partition changed.

    `identities`, `digests` and `places` describe what was accepted (`streams.ports.Claimed`). `refused` lists
    (offset, index) of events that were not accepted here: dead letters and events sent on to their own partition.
    `received_ms` is the newest broker append time of the batch, `oldest_received_ms` the oldest. `dimension_names` are
    the names behind each touched meter's dimension values, `aggregations` how each touched meter aggregates.
    `activated` names meters that this partition counts from a source offset on. `watermark_us` is the greatest event
    time accepted so far, never beyond the received time.
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
    digests: bytes
    places: bytes
    windows: list[WindowRow]
    periods: list[PeriodRow]
    samples: list[SampleRow]
    corrections: list[CorrectionRow]
    late: list[LateRow]
    refused: list[tuple[int, int]]
    dimension_names: dict[str, tuple[str, ...]]
    aggregations: dict[str, str]
    activated: dict[str, int]
    watermark_us: int


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


def must_follow(entry: JournalEntry, next_source: int) -> int:
    """Return the source offset that the reader knows up to once it has taken this entry.

    `next_source` is up to where it knows now, 0 if nothing. Entries may come again; raises `BrokenInvariantError` if
    some before this one never came: whoever commits past them would have lost what they say.
    """
    if 0 < next_source <= entry.previous_last:
        reason = f"journal entries of source offsets {next_source} to {entry.previous_last} were never read"
        raise BrokenInvariantError(reason)
    return max(next_source, entry.last + 1)
