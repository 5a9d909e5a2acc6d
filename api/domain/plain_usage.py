"""The plain form of a usage event. Owns how it becomes a CloudEvent at the edge, and how faults point back into it.

`{"tenant_id", "metric_type", "value", "dimensions", "timestamp", "id"}`, as services without CloudEvents send it. The
meter named by `metric_type` decides the event type and the property that carries the value.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from core.meters import Meter, Registry
from core.quantity import UNIT, scale_quantity
from core.usage_event import Rejection

SOURCE = "api"
_NAMES = ("tenant_id", "metric_type", "timestamp")


class PlainUsage(msgspec.Struct, gc=False):
    """What a caller sends in the plain form; `id` may come from the request instead."""

    tenant_id: str
    metric_type: str
    timestamp: str
    value: Any = None
    dimensions: dict[str, Any] = {}
    id: str | None = None


_decode = msgspec.json.Decoder(PlainUsage, float_hook=Decimal).decode
_decode_any = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError)


def to_cloud_event(raw: bytes, registry: Registry, event_id: str) -> bytes | Rejection:
    """Return the CloudEvent's bytes; `event_id` is used where the form names none.

    Codes: `not_json`, `not_an_object`, `missing_field`, `invalid_field`, `unknown_meter`, `invalid_quantity`,
    `invalid_dimension`; everything else is judged on the CloudEvent by `core.usage_event`.
    """
    try:
        usage = _decode(raw)
    except _UNREADABLE:
        return _diagnose(raw)
    meter = registry.by_id.get(usage.metric_type)
    if meter is None:
        return Rejection("unknown_meter", f"no meter {usage.metric_type[:80]!r}", "/metric_type")
    data = _data(usage, meter)
    if isinstance(data, Rejection):
        return data
    event = {
        "specversion": "1.0",
        "id": event_id if usage.id is None else usage.id,
        "source": SOURCE,
        "type": meter.event_type,
        "subject": usage.tenant_id,
        "time": usage.timestamp,
        "datacontenttype": "application/json",
        "data": data,
    }
    try:
        return _encode(event)
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError, RecursionError):
        return Rejection("invalid_dimension", "dimensions must be texts, numbers or booleans", "/dimensions")


def point_back(rejection: Rejection) -> Rejection:
    """Return a rejection of the CloudEvent as one of the plain form, pointing where the caller wrote it."""
    pointer = rejection.pointer
    if pointer.startswith("/data/"):
        named = rejection.code.endswith("_dimension")
        pointer = f"/dimensions/{pointer[6:]}" if named else "/value"
    elif pointer in _POINTERS:
        pointer = _POINTERS[pointer]
    return Rejection(rejection.code, rejection.reason, pointer)


_POINTERS = {"/subject": "/tenant_id", "/type": "/metric_type", "/time": "/timestamp", "/data": "/value"}


def _data(usage: PlainUsage, meter: Meter) -> dict[str, Any] | Rejection:
    if meter.value_property is None:
        # Every event counts as one; a value of five would silently count as one too.
        if usage.value is not None and scale_quantity(usage.value) != UNIT:
            return Rejection("invalid_quantity", f"{meter.meter_id} counts events: value must be 1 or absent", "/value")
        return dict(usage.dimensions)
    if usage.value is None:
        return Rejection("missing_field", "value is missing", "/value")
    if meter.value_property in usage.dimensions:
        name = meter.value_property
        return Rejection("invalid_dimension", f"{name} is the meter's value, not a dimension", f"/dimensions/{name}")
    return {**usage.dimensions, meter.value_property: usage.value}


def _diagnose(raw: bytes) -> Rejection:
    if not raw.strip():
        return Rejection("empty", "the body is empty")
    try:
        found = _decode_any(raw)
    except _UNREADABLE as error:
        return Rejection("not_json", f"not JSON: {str(error)[:200]}")
    if not isinstance(found, dict):
        return Rejection("not_an_object", "expected a JSON object")
    for name in _NAMES:
        if found.get(name) is None:
            return Rejection("missing_field", f"{name} is missing", f"/{name}")
        if not isinstance(found[name], str):
            return Rejection("invalid_field", f"{name} must be a text", f"/{name}")
    if not isinstance(found.get("dimensions", {}), dict):
        return Rejection("invalid_field", "dimensions must be a JSON object", "/dimensions")
    return Rejection("invalid_field", "id must be a text", "/id")
