"""Corrections: events of reserved types that take out, replace or add earlier usage. Owns their form.

A correction is an event like any other: it has its own identity, is deduplicated by it and never deletes anything. What
it corrects is named by (source, id) within its own tenant. The forms, all CloudEvents whose subject is the tenant:

- `meterbook.usage.void`: data `{"corrects": {"source", "id"}, "reason"}`
- `meterbook.usage.amend`: data `{"corrects": {"source", "id"}, "event": {"type", "time", "data"}, "reason"}`
- `meterbook.usage.backfill`: data `{"start", "end", "reason", "events": [{"id", "type", "time", "data"}]}`, a record of
  its own; its events carry the backfill's source and subject
- `meterbook.meter.backfill`: what a meter that was added later would have counted before; only Meterbook itself writes
  these: data `{"meter", "before", "last", "measures": [[dimensions, time_us, value, offset, index]]}`, for an additive
  meter aggregated by minute: `[dimensions, window_start_us, quantity, events, 0]`, quantities as decimal strings
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from core.event_time import parse_event_time
from core.meters import Registry
from core.quantity import scale_quantity
from core.usage_event import (
    AMEND,
    BACKFILL,
    METER_BACKFILL,
    NAME_LENGTH_MAX,
    VOID,
    CloudEvent,
    IngestLimits,
    Rejection,
    ReservedEvent,
    UsageEvent,
    judge_event,
)

REASON_LENGTH_MAX = 500
OWN_SOURCE = "meterbook"
BACKFILL_EVENTS_MAX = 10_000
# Ages are not looked at: what is corrected or filled in lies in the past by nature.
ANY_AGE = IngestLimits(max_ahead_us=300 * 1_000_000, max_age_us=1 << 62)


# Numbers stay the digits that were sent.
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Correction(msgspec.Struct, gc=False):
    """A void or amend. `replacement` is what an amend counts instead, under the amend's own source and id."""

    kind: Literal["void", "amend"]
    tenant: str
    source: str
    id: str
    time_us: int
    target_source: str
    target_id: str
    reason: str
    replacement: UsageEvent | None


class Backfill(msgspec.Struct, gc=False):
    """A closed range `[start_us, end_us)` and its events, each as the bytes of a structured CloudEvent."""

    tenant: str
    source: str
    id: str
    start_us: int
    end_us: int
    reason: str
    items: list[bytes]


class MeterBackfill(msgspec.Struct, gc=False):
    """A part of what one meter would have counted on one partition before the source offset `before`.

    `windows` are (dimension values, window start in whole seconds, scaled quantity, events) of an additive meter,
    `samples` (dimension values, time in microseconds, value, offset, index) of a sampled one; a value is the scaled
    integer as text, or the distinct text.
    """

    tenant: str
    source: str
    id: str
    meter: str
    before: int
    is_last: bool
    windows: list[tuple[tuple[str, ...], int, int, int]]
    samples: list[tuple[tuple[str, ...], int, str, int, int]]


class _Target(msgspec.Struct):
    source: str
    id: str


class _Replacement(msgspec.Struct):
    type: str
    time: str
    data: dict[str, Any]


class _Void(msgspec.Struct):
    corrects: _Target
    reason: str = ""


class _Amend(msgspec.Struct):
    corrects: _Target
    event: _Replacement
    reason: str = ""


class _Item(msgspec.Struct):
    id: str
    type: str
    time: str
    data: dict[str, Any]


class _Backfill(msgspec.Struct):
    start: str
    end: str
    events: list[_Item]
    reason: str = ""


class _MeterBackfill(msgspec.Struct):
    meter: str
    before: int
    last: bool
    measures: list[tuple[list[str], int, str, int, int]]


def read_reserved(
    event: ReservedEvent, registry: Registry, received_us: int
) -> Correction | Backfill | MeterBackfill | Rejection:
    """Read an event of a reserved type.

    Codes: `invalid_correction`, `invalid_range`, `not_correctable`, `reserved_type`, `unknown_meter`, and for what an
    amend counts those of `judge_event`.
    """
    if event.type == VOID:
        return _read_void(event)
    if event.type == AMEND:
        return _read_amend(event, registry, received_us)
    if event.type == BACKFILL:
        return _read_backfill(event, received_us)
    return _read_meter_backfill(event, registry)


def amended_content(data: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return type, time and data that an accepted amend counts instead; `data` are the amend's own."""
    event = data["event"]
    return event["type"], event["time"], event["data"]


def backfill_items(event: ReservedEvent) -> list[bytes] | Rejection:
    """Return the events of a backfill as structured CloudEvents, in order: a backfill's index counts them."""
    body = _convert(event, _Backfill)
    return body if isinstance(body, Rejection) else _items_of(event, body)


def _read_void(event: ReservedEvent) -> Correction | Rejection:
    body = _convert(event, _Void)
    if isinstance(body, Rejection):
        return body
    fault = _bad_target(event, body.corrects) or _bad_reason(body.reason)
    return fault or _correction(event, "void", body.corrects, body.reason, None)


def _read_amend(event: ReservedEvent, registry: Registry, received_us: int) -> Correction | Rejection:
    body = _convert(event, _Amend)
    if isinstance(body, Rejection):
        return body
    fault = _bad_target(event, body.corrects) or _bad_reason(body.reason)
    if fault:
        return fault
    content = body.event
    replaced = CloudEvent("1.0", event.id, event.source, content.type, event.subject, content.time, content.data)
    judged = judge_event(replaced, registry, ANY_AGE, received_us)
    if isinstance(judged, ReservedEvent):
        return Rejection("invalid_correction", "an amend's event must be usage", "/data/event/type")
    if isinstance(judged, Rejection):
        return Rejection(judged.code, judged.reason, f"/data/event{judged.pointer}")
    return _correction(event, "amend", body.corrects, body.reason, judged)


def _correction(
    event: ReservedEvent, kind: Literal["void", "amend"], target: _Target, reason: str, replacement: UsageEvent | None
) -> Correction:
    return Correction(
        kind, event.tenant, event.source, event.id, event.time_us, target.source, target.id, reason, replacement
    )


def _read_backfill(event: ReservedEvent, received_us: int) -> Backfill | Rejection:
    body = _convert(event, _Backfill)
    if isinstance(body, Rejection):
        return body
    fault = _bad_reason(body.reason)
    if fault:
        return fault
    start, end = parse_event_time(body.start), parse_event_time(body.end)
    if isinstance(start, str) or isinstance(end, str):
        return Rejection("invalid_range", "start and end must be RFC 3339 with a zone", "/data/start")
    if not start < end <= received_us:
        return Rejection("invalid_range", "a backfill covers [start, end), all of it past", "/data/end")
    if not 0 < len(body.events) <= BACKFILL_EVENTS_MAX:
        return Rejection("invalid_range", f"a backfill holds 1 to {BACKFILL_EVENTS_MAX} events", "/data/events")
    return Backfill(event.tenant, event.source, event.id, start, end, body.reason, _items_of(event, body))


def _items_of(event: ReservedEvent, body: _Backfill) -> list[bytes]:
    source, subject = event.source, event.subject
    return [
        _encode(CloudEvent("1.0", item.id, source, item.type, subject, item.time, item.data)) for item in body.events
    ]


def _read_meter_backfill(event: ReservedEvent, registry: Registry) -> MeterBackfill | Rejection:
    if event.source != OWN_SOURCE:
        return Rejection("reserved_type", f"{METER_BACKFILL} is written by Meterbook itself", "/type")
    body = _convert(event, _MeterBackfill)
    if isinstance(body, Rejection):
        return body
    meter = registry.by_id.get(body.meter)
    if meter is None:
        return Rejection("unknown_meter", f"no meter {body.meter[:80]!r}", "/data/meter")
    windows: list[tuple[tuple[str, ...], int, int, int]] = []
    samples: list[tuple[tuple[str, ...], int, str, int, int]] = []
    for dimensions, time_us, value, fourth, index in body.measures:
        if len(dimensions) != len(meter.dimensions):
            return Rejection("invalid_correction", "a measure with other dimensions than its meter's", "/data/measures")
        if meter.aggregation == "unique":
            samples.append((tuple(dimensions), time_us, value, fourth, index))
            continue
        quantity = _scale(value)
        if quantity is None:
            return Rejection("invalid_correction", f"{value[:40]!r} is no quantity", "/data/measures")
        if meter.is_additive:
            windows.append((tuple(dimensions), time_us // 60_000_000 * 60, quantity, fourth))
        else:
            samples.append((tuple(dimensions), time_us, str(quantity), fourth, index))
    return MeterBackfill(
        event.tenant, event.source, event.id, body.meter, body.before, body.last, windows, samples
    )  # fmt: skip


def _scale(text: str) -> int | None:
    # A minute's total may be more than one event may carry, so the whole part has no bound here.
    whole, _, fraction = text.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) <= 26 and len(fraction) <= 12):
        return None
    scaled = scale_quantity(f"0.{fraction}") if fraction else 0
    return None if isinstance(scaled, str) else int(whole) * 10**12 + scaled


def _convert(event: ReservedEvent, form: type[Any]) -> Any:
    try:
        return msgspec.convert(event.data, form)
    except (msgspec.ValidationError, ArithmeticError) as error:
        return Rejection("invalid_correction", f"data of {event.type}: {str(error)[:200]}", "/data")


def _bad_target(event: ReservedEvent, target: _Target) -> Rejection | None:
    for name, text in (("source", target.source), ("id", target.id)):
        if not (0 < len(text) <= NAME_LENGTH_MAX and text.isprintable()):
            reason = f"expected 1 to {NAME_LENGTH_MAX} printable characters"
            return Rejection("invalid_correction", reason, f"/data/corrects/{name}")
    if (target.source, target.id) == (event.source, event.id):
        return Rejection("not_correctable", "an event cannot correct itself", "/data/corrects")
    return None


def _bad_reason(reason: str) -> Rejection | None:
    if len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
        return Rejection(
            "invalid_correction", f"expected at most {REASON_LENGTH_MAX} printable characters", "/data/reason"
        )
    return None
