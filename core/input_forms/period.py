"""The period form: `tenant_id, resource_type, quantity, unit, period_start, period_end, source`.

As a monitor reports what a resource used during a stretch of time. The usage belongs to `[period_start, period_end)`
and is counted one microsecond before its end, the last instant within: a report that ends with a day or month is
counted in that day or month, in every time zone; its time lies close to when it is sent, so neither the age limit nor
a closed window catches an hour's or a month's report that was sent when it was due; and one that has not ended yet is
refused as lying in the future. It is not spread over the period: an even share of a quantity is a guess, and mostly one
that has to be rounded. Who wants usage counted by the hour reports by the hour.
"""

from __future__ import annotations

from typing import Any

from core.event_time import format_event_time
from core.input_forms.fields import Formed, FormFields, Refusal, cloud_event
from core.input_forms.mapping import FormMapping, Target
from core.usage_event import Rejection

REQUIRED = ("tenant_id", "resource_type", "quantity", "unit", "period_start", "period_end", "source")
MARKS = frozenset({"resource_type", "unit", "period_start", "period_end"})
_FIELDS = frozenset({*REQUIRED, "dimensions", "id"})
_UNKNOWN = Target("", "")


def read_period(found: dict[str, Any], mapping: FormMapping, event_id: str) -> list[Formed] | Refusal:
    """Return the CloudEvent of a period form; `event_id` is used where the form names none.

    Codes: `unknown_resource_type`, `unknown_unit`, `invalid_period` (no length) and those of `FormFields`.
    """
    fields = FormFields(found)
    subject, resource_type, unit = fields.text("tenant_id"), fields.text("resource_type"), fields.text("unit")
    end = _read_end(fields)
    source = fields.text("source") and fields.name("source", "-")
    event_id = fields.name("id", event_id)
    target = _find(fields, mapping, resource_type, unit)
    quantity = fields.quantity("quantity", multiply_by=target.multiply_by)
    own = {"resource_type": resource_type} | {name: found.get(name) for name in ("period_start", "period_end")}
    if target.multiply_by != 1:
        # What was multiplied is kept, so that a line can be explained from what was reported.
        own |= {"reported_quantity": fields.quantity("quantity"), "reported_unit": unit}
    dimensions = fields.dimensions({*own, target.property})
    fields.finish(_FIELDS)
    if fields.faults:
        return Refusal(tuple(fields.faults))
    data = {**dimensions, **own, target.property: quantity}
    value = cloud_event(event_id, source, target.event_type, subject, format_event_time(end - 1), data)
    if isinstance(value, Rejection):
        return Refusal((value,))
    pointers = {
        "/subject": "/tenant_id",
        "/time": "/period_end",
        "/type": "/resource_type",
        "/data": "/quantity",
        "/data/resource_type": "/resource_type",
        f"/data/{target.property}": "/quantity",
    }
    return [Formed(value, pointers)]


def _read_end(fields: FormFields) -> int:
    before = len(fields.faults)
    start, end = fields.event_time("period_start"), fields.event_time("period_end")
    if len(fields.faults) == before and not start < end:
        fields.fault("invalid_period", "period_end must lie after period_start", "period_end")
    return end


def _find(fields: FormFields, mapping: FormMapping, resource_type: str, unit: str) -> Target:
    units = mapping.resources.get(resource_type)
    if units is None:
        if resource_type:
            reason = f"no resource type {resource_type[:80]!r}; there are {', '.join(mapping.resources)}"
            fields.fault("unknown_resource_type", reason, "resource_type")
        return _UNKNOWN
    target = units.get(unit)
    if target is None and unit:
        # A unit is never guessed: GB and GiB differ by seven per cent.
        reason = f"{resource_type} is not taken in {unit[:80]!r}; there are {', '.join(units)}"
        fields.fault("unknown_unit", reason, "unit")
    return target or _UNKNOWN
