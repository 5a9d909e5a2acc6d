"""Usage events. Owns how bytes become an accepted event or a refusal; API and stream judge by this one function.

The form is CloudEvents 1.0, structured JSON. Identity is (tenant, source, id); the time is never part of it. The
answer depends only on the arguments: received time is handed in (the broker's append time in the stream), so every
reader of a record judges it alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from zlib import crc32

import msgspec

from core.event_time import parse_event_time
from core.meters import ADDS_UP, UNIQUE, Registry
from core.quantity import LIMIT, UNIT, scale_quantity

IDENTITY_BYTES = 16
NAME_LENGTH_MAX = 256
# Types that mean something to Meterbook itself (`core.corrections`); no meter can count them.
VOID = "meterbook.usage.void"
AMEND = "meterbook.usage.amend"
BACKFILL = "meterbook.usage.backfill"
METER_BACKFILL = "meterbook.meter.backfill"
RESERVED_TYPES = frozenset({VOID, AMEND, BACKFILL, METER_BACKFILL})
# Outside of this nothing can be meant: ClickHouse's DateTime and every calendar rule hold within.
EARLIEST_US = 946_684_800_000_000  # 2000-01-01
LATEST_US = 4_102_444_800_000_000  # 2100-01-01


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an event was refused: a stable code, a sentence, and the JSON pointer of the culprit ("" = the whole)."""

    code: str
    reason: str
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """What bounds an event: bytes, microseconds ahead of and behind the received time; and an array of events.

    A record may be compressed, so the topic's own limit bounds neither an array's bytes nor its events.
    """

    max_bytes: int = 65_536
    max_batch_bytes: int = 4_000_000
    max_batch_events: int = 10_000
    max_ahead_us: int = 300 * 1_000_000
    max_age_us: int = 35 * 86_400 * 1_000_000


class CloudEvent(msgspec.Struct, gc=False):
    """The attributes we need of a CloudEvent 1.0; others are allowed and kept only in the raw bytes."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: dict[str, Any]


# What one additive meter reads off an event: (meter id, dimension values in the meter's order, quantity x 10^12).
Measure = tuple[str, tuple[str, ...], int]
# What one sampled meter reads off: (meter id, dimension values, scaled integer as text or the distinct text).
Sample = tuple[str, tuple[str, ...], str]


class UsageEvent(msgspec.Struct, gc=False):
    """An accepted event. `time_us` is microseconds since 1970 UTC; each meter that it feeds has a measure or a sample.

    `digest` is 32 bits of the type and all that was read: a twin of the same identity that counts otherwise differs.
    """

    tenant: str
    customer: str
    source: str
    id: str
    type: str
    time_us: int
    data: dict[str, Any]
    measures: list[Measure]
    samples: list[Sample]
    digest: int

    @property
    def identity(self) -> bytes:
        """128 bits of BLAKE2b over tenant, source and id: what dedupe compares."""
        return event_identity(self.tenant, self.source, self.id)


class ReservedEvent(msgspec.Struct, gc=False):
    """An event of a reserved type with good names and time; `core.corrections` reads on."""

    tenant: str
    subject: str
    source: str
    id: str
    type: str
    time_us: int
    data: dict[str, Any]


_decode = msgspec.json.Decoder(CloudEvent, float_hook=Decimal).decode
_decode_any = msgspec.json.Decoder(float_hook=Decimal).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_batch = msgspec.json.Decoder(list[CloudEvent], float_hook=Decimal).decode
_new_digest = blake2b(digest_size=IDENTITY_BYTES).copy
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError)
# Names that were found good, so that what repeats with every event is looked at once: sources; and dimension values as
# they stand in the data (texts, None for missing or null) with what they mean. Only good ones: a refusal is never kept.
_good_sources: set[str] = set()
_good_dimensions: dict[tuple[str | None, ...], tuple[str, ...]] = {}
_type_digest: dict[str, int] = {}
_dimensions_digest: dict[tuple[str, ...], int] = {}
_NAMES_KEPT = 50_000


def event_identity(tenant: str, source: str, event_id: str) -> bytes:
    """Return the 16 bytes that stand for (tenant, source, id); names hold no NUL, so no two identities meet."""
    digest = _new_digest()
    digest.update(f"{tenant}\0{source}\0{event_id}".encode())
    return digest.digest()


def correction_claim(tenant: str, source: str, event_id: str) -> bytes:
    """Return the identity that the first correction of an event claims, so that there is no second one."""
    digest = _new_digest()
    # Four parts, where an event's identity has three.
    digest.update(f"{tenant}\0corrected\0{source}\0{event_id}".encode())
    return digest.digest()


def split_batch(raw: bytes) -> list[bytes] | Rejection:
    """Return the elements of a JSON array of events, each as its own bytes, or why it is none."""
    try:
        return [bytes(item) for item in _decode_items(raw)]
    except _UNREADABLE as error:
        return Rejection("not_json", f"the batch is not a JSON array: {error}")


def parse_batch(raw: bytes, limits: IngestLimits) -> list[bytes] | Rejection:
    """Return the elements of an array of events within its limits, or why it is refused as a whole.

    Codes: `too_large`, `too_many_events`, and that of `split_batch`.
    """
    if len(raw) > limits.max_batch_bytes:
        return Rejection("too_large", f"the batch has {len(raw)} bytes, {limits.max_batch_bytes} are allowed")
    items = split_batch(raw)
    if isinstance(items, list) and len(items) > limits.max_batch_events:
        found = f"the batch has {len(items)} events, {limits.max_batch_events} are allowed"
        return Rejection("too_many_events", found)
    return items


def decode_batch(raw: bytes, limits: IngestLimits) -> list[CloudEvent] | None:
    """Decode an array of events at once, or return None if any needs a look of its own (then `parse_batch`).

    Each event of the answer is what its own bytes decode to, and none of them is too large.
    """
    if len(raw) > limits.max_bytes:
        return None
    try:
        events = _decode_batch(raw)
    except _UNREADABLE:
        return None
    return events if len(events) <= limits.max_batch_events else None


def is_batch(raw: bytes) -> bool:
    """Say whether the bytes are a JSON array rather than one event."""
    first = raw[:1]
    return first != b"{" and (first == b"[" or raw.lstrip()[:1] == b"[")


def parse_event(
    raw: bytes | None, registry: Registry, limits: IngestLimits, received_us: int
) -> UsageEvent | ReservedEvent | Rejection:
    """Judge one event given as bytes of structured JSON.

    Codes: `tombstone`, `empty`, `too_large`, `not_json`, `not_an_object`, `missing_field`, `invalid_field`,
    `unsupported_specversion`, and those of `judge_event`.
    """
    if raw is None:
        return Rejection("tombstone", "the record has no value")
    if len(raw) > limits.max_bytes:
        return Rejection("too_large", f"the event has {len(raw)} bytes, {limits.max_bytes} are allowed")
    try:
        event = _decode(raw)
    except _UNREADABLE:
        return _diagnose(raw)
    return judge_event(event, registry, limits, received_us)


def judge_event(
    event: CloudEvent, registry: Registry, limits: IngestLimits, received_us: int
) -> UsageEvent | ReservedEvent | Rejection:
    """Judge a decoded CloudEvent: names, tenant, meter, time, quantities, dimensions.

    Codes: `unsupported_specversion`, `invalid_field`, `unknown_tenant`, `unknown_meter`, `invalid_time`,
    `time_without_zone`, `time_out_of_bounds`, `future_time`, `too_old`, `missing_quantity`, `invalid_quantity`,
    `negative_quantity`, `quantity_out_of_range`, `too_many_digits`, `invalid_value`, `invalid_dimension`.
    """
    if event.specversion != "1.0":
        return Rejection("unsupported_specversion", "expected CloudEvents specversion 1.0", "/specversion")
    event_id, source = event.id, event.source
    if not (0 < len(event_id) <= NAME_LENGTH_MAX and event_id.isprintable()):
        return _bad_name("id")
    if source not in _good_sources:
        if not (0 < len(source) <= NAME_LENGTH_MAX and source.isprintable()):
            return _bad_name("source")
        _make_room(_good_sources)
        _good_sources.add(source)
    names = registry.accepted_subjects.get(event.subject) or _judge_subject(event.subject, registry)
    if type(names) is Rejection:
        return names
    tenant, customer = names  # type: ignore[misc]
    event_type = event.type
    readings = registry.readings.get(event_type)
    if readings is None and event_type not in RESERVED_TYPES:
        return Rejection("unknown_meter", f"no meter counts events of type {event_type[:80]!r}", "/type")
    time_us = parse_event_time(event.time)
    if isinstance(time_us, str):
        return Rejection(time_us, f"expected RFC 3339 with a zone, got {event.time[:80]!r}", "/time")
    if not received_us - limits.max_age_us <= time_us <= received_us + limits.max_ahead_us:
        return _out_of_bounds(event.time, time_us, received_us)
    if not EARLIEST_US <= time_us < LATEST_US:
        return Rejection("time_out_of_bounds", f"expected a time from 2000 to 2099, got {event.time[:80]!r}", "/time")
    data = event.data
    if readings is None:
        return ReservedEvent(tenant, event.subject, source, event_id, event_type, time_us, data)
    measures: list[Measure] = []
    samples: list[Sample] = []
    digest = _type_digest.get(event_type) or _digest_of(_type_digest, event_type, event_type)
    is_fed = False
    for meter_id, value_property, dimensions, meter, kind in readings:
        if meter is not None and not meter.feeds(data):
            is_fed = True  # a filter passed it by: nothing is missing
            continue
        if value_property is None:
            quantity: int | str = UNIT
        else:
            value = data.get(value_property)
            if value is None:
                continue
            if kind == UNIQUE:
                value = _distinct_text(value, value_property)
                if type(value) is Rejection:
                    return value
                quantity = 0
            else:
                # Small whole numbers are most of all quantities; the rule itself is scale_quantity's.
                quantity = value * UNIT if type(value) is int and 0 <= value < LIMIT else scale_quantity(value)
                if type(quantity) is str:
                    return _bad_quantity(quantity, value_property, value)
        digest = digest * 31 + quantity  # type: ignore[operator]
        values: tuple[str, ...] | Rejection = ()
        if dimensions:
            values = _dimension_values(dimensions, data)
            if type(values) is Rejection:
                return values
            digest += _dimensions_digest.get(values) or _digest_of_dimensions(values)  # type: ignore[arg-type]
        if kind == ADDS_UP:
            measures.append((meter_id, values, quantity))  # type: ignore[arg-type]
        elif kind == UNIQUE:
            digest += crc32(value.encode())  # type: ignore[union-attr]
            samples.append((meter_id, values, value))  # type: ignore[arg-type]
        else:
            samples.append((meter_id, values, str(quantity)))  # type: ignore[arg-type]
    if not (measures or samples or is_fed):
        wanted = " or ".join(str(reading[1]) for reading in readings)
        return Rejection("missing_quantity", f"data has no {wanted}", "/data")
    return UsageEvent(
        tenant, customer, source, event_id, event_type, time_us, data, measures, samples, digest & 0xFFFF_FFFF
    )


def _judge_subject(subject: str, registry: Registry) -> tuple[str, str] | Rejection:
    tenant, _, customer = subject.partition("/")
    if tenant not in registry.tenants:
        return Rejection("unknown_tenant", f"no tenant {tenant[:80]!r}", "/subject")
    if len(customer) > NAME_LENGTH_MAX or not customer.isprintable():
        return _bad_name("subject")
    _make_room(registry.accepted_subjects)
    registry.accepted_subjects[subject] = tenant, customer
    return tenant, customer


def _make_room(kept: dict[Any, Any] | set[Any]) -> None:
    if len(kept) >= _NAMES_KEPT:
        kept.clear()


def _digest_of(kept: dict[Any, int], key: Any, text: str) -> int:
    _make_room(kept)
    kept[key] = crc32(text.encode())
    return kept[key]


def _digest_of_dimensions(values: tuple[str, ...]) -> int:
    return _digest_of(_dimensions_digest, values, "\0".join(values))


def _distinct_text(value: object, name: str) -> str | Rejection:
    text = value if type(value) is str else _plain_text(value)
    if text is None or not (0 < len(text) <= NAME_LENGTH_MAX and text.isprintable()):
        reason = f"{name} must be 1 to {NAME_LENGTH_MAX} printable characters, a number or a boolean"
        return Rejection("invalid_value", reason, f"/data/{name}")
    return text


def _plain_text(value: object) -> str | None:
    if type(value) is bool:
        return "true" if value else "false"
    return str(value) if type(value) in (int, Decimal) else None


def _dimension_values(dimensions: tuple[str, ...], data: dict[str, Any]) -> tuple[str, ...] | Rejection:
    found = tuple(map(data.get, dimensions))
    try:
        known = _good_dimensions.get(found)
    except TypeError:  # an array or object: refused below
        known = None
    if known is not None:
        return known
    values = _judge_dimensions(dimensions, data)
    # Nothing else than texts and None is kept: 1, 1.0 and true are the same key, but not the same value.
    if type(values) is tuple and all(value is None or type(value) is str for value in found):
        _make_room(_good_dimensions)
        _good_dimensions[found] = values
    return values


def _judge_dimensions(dimensions: tuple[str, ...], data: dict[str, Any]) -> tuple[str, ...] | Rejection:
    values = []
    for name in dimensions:
        found = data.get(name)
        value = "" if found is None else found if type(found) is str else _plain_text(found)
        if value is None:
            return Rejection("invalid_dimension", f"{name} must be a text, number or boolean", f"/data/{name}")
        if len(value) > NAME_LENGTH_MAX or not value.isprintable():
            return Rejection("invalid_dimension", f"{name} must be at most 256 printable characters", f"/data/{name}")
        values.append(value)
    return tuple(values)


def _bad_name(name: str) -> Rejection:
    return Rejection("invalid_field", f"{name} must be 1 to {NAME_LENGTH_MAX} printable characters", f"/{name}")


def _out_of_bounds(text: str, time_us: int, received_us: int) -> Rejection:
    if not EARLIEST_US <= time_us < LATEST_US:
        return Rejection("time_out_of_bounds", f"expected a time from 2000 to 2099, got {text[:80]!r}", "/time")
    if time_us > received_us:
        return Rejection("future_time", f"{text} is too far ahead of the time it was received", "/time")
    return Rejection("too_old", f"{text} is too long before the time it was received", "/time")


_QUANTITY_REASONS = {
    "invalid_quantity": "is not a number or decimal text",
    "negative_quantity": "is negative; corrections are events of their own",
    "quantity_out_of_range": "is 10^15 or more",
    "too_many_digits": "has more than 12 decimal places",
}


def _bad_quantity(code: str, name: str, value: object) -> Rejection:
    return Rejection(code, f"{name} {_QUANTITY_REASONS[code]}: {str(value)[:80]!r}", f"/data/{name}")


def _diagnose(raw: bytes) -> Rejection:
    """Say what is wrong with bytes that are no CloudEvent; runs only for refused events, so it may be slow."""
    if not raw.strip():
        return Rejection("empty", "the body is empty")
    try:
        found = _decode_any(raw)
    except _UNREADABLE as error:
        return Rejection("not_json", f"not JSON: {str(error)[:200]}")
    if not isinstance(found, dict):
        return Rejection("not_an_object", "expected a JSON object")
    for name in CloudEvent.__struct_fields__:
        if found.get(name) is None:
            return Rejection("missing_field", f"{name} is missing", f"/{name}")
        if name == "data" and not isinstance(found[name], dict):
            return Rejection("invalid_field", "data must be a JSON object", "/data")
        if name != "data" and not isinstance(found[name], str):
            return Rejection("invalid_field", f"{name} must be a text", f"/{name}")
    return Rejection("not_json", "not a CloudEvent in structured JSON")
