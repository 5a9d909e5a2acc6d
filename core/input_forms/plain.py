"""The plain form of a usage event: `tenant_id, metric_type, value, dimensions, timestamp`, with `id` and `source`.

As services without CloudEvents send it. The meter named by `metric_type` decides the event type and the property that
carries the value.
"""

from __future__ import annotations

from typing import Any

from core.input_forms.fields import SOURCE, Formed, FormFields, Refusal, cloud_event
from core.meters import Meter, Registry
from core.quantity import UNIT, scale_quantity
from core.usage_event import Rejection

REQUIRED = ("tenant_id", "metric_type", "timestamp")
MARKS = frozenset({"metric_type", "value"})
_FIELDS = frozenset({*REQUIRED, *MARKS, "dimensions", "id", "source"})


def read_plain(found: dict[str, Any], registry: Registry, event_id: str) -> list[Formed] | Refusal:
    """Return the CloudEvent of a plain form; `event_id` is used where the form names none.

    Codes: `missing_field`, `invalid_field`, `unknown_field`, `unknown_meter`, `invalid_quantity`, `invalid_dimension`,
    `not_counted`, those of `FormFields`; everything else is judged on the CloudEvent by `core.usage_event`.
    """
    fields = FormFields(found)
    subject, named = fields.text("tenant_id"), fields.text("metric_type")
    fields.event_time("timestamp")
    event_id, source = fields.name("id", event_id), fields.name("source", SOURCE)
    fields.finish(_FIELDS)
    meter = registry.by_id.get(named)
    if meter is None:
        fields.dimensions(())
        if named:
            fields.fault("unknown_meter", f"no meter {named[:80]!r}", "metric_type")
        return Refusal(tuple(fields.faults))
    data = _data(fields, found.get("value"), meter)
    if fields.faults:
        return Refusal(tuple(fields.faults))
    value = cloud_event(event_id, source, meter.event_type, subject, found["timestamp"], data)
    if isinstance(value, Rejection):
        return Refusal((value,))
    if not meter.feeds(data):
        # The caller named the meter, so an event that it passes by is not what was meant.
        reason = f"these dimensions do not pass the filters of {meter.meter_id}"
        return Refusal((Rejection("not_counted", reason, "/dimensions"),))
    pointers = {"/subject": "/tenant_id", "/type": "/metric_type", "/time": "/timestamp", "/data": "/value"}
    return [Formed(value, {**pointers, f"/data/{meter.value_property}": "/value"})]


def _data(fields: FormFields, value: Any, meter: Meter) -> dict[str, Any]:
    if meter.value_property is None:
        # Every event counts as one; a value of five would silently count as one too.
        if value is not None and scale_quantity(value) != UNIT:
            fields.fault("invalid_quantity", f"{meter.meter_id} counts events: value must be 1 or absent", "value")
        return dict(fields.dimensions(()))
    if value is None:
        fields.fault("missing_field", "value is missing", "value")
    return {**fields.dimensions((meter.value_property,)), meter.value_property: value}
