"""The plain forms of corrections: what a void, amend or backfill says, beside the tenant and, optionally, its own name.

`tenant_id` and the data of the correction (`core.corrections`): `corrects`, `reason`; `event` for an amend; `start`,
`end` and `events` for a backfill. `id`, `source` and `timestamp` may be left out.
"""

from __future__ import annotations

from typing import Any

from core.event_time import format_event_time
from core.input_forms.fields import SOURCE, Formed, FormFields, Refusal, cloud_event
from core.usage_event import AMEND, BACKFILL, VOID, Rejection

# Required and optional parts of each correction's data.
_REQUIRED: dict[str, tuple[str, ...]] = {
    VOID: ("corrects",),
    AMEND: ("corrects", "event"),
    BACKFILL: ("start", "end", "events"),
}
_FRAME = frozenset({"tenant_id", "id", "source", "timestamp", "reason"})


def read_correction(event_type: str, found: dict[str, Any], event_id: str, now_us: int) -> Formed | Refusal:
    """Return the CloudEvent of a correction of this type; `event_id` and `now_us` are used where the form names none.

    Codes: `missing_field`, `unknown_field` and those of `FormFields`; the data are judged by `core.corrections`.
    """
    fields = FormFields(found)
    subject, reason = fields.text("tenant_id"), fields.optional_text("reason", "")
    event_id, source = fields.name("id", event_id), fields.name("source", SOURCE)
    time_us = now_us if found.get("timestamp") is None else fields.event_time("timestamp")
    for name in _REQUIRED[event_type]:
        fields.require(name)
    fields.finish(_FRAME.union(_REQUIRED[event_type]))
    if fields.faults:
        return Refusal(tuple(fields.faults))
    data = {name: found[name] for name in _REQUIRED[event_type]} | {"reason": reason}
    value = cloud_event(event_id, source, event_type, subject, format_event_time(time_us), data)
    if isinstance(value, Rejection):
        return Refusal((Rejection("invalid_correction", "the correction cannot be written as JSON"),))
    return Formed(value, {"/subject": "/tenant_id", "/time": "/timestamp", "/data": ""}, data_at="")
