"""The service form: `tenant_id, service, usage_type, quantity, timestamp`, the time in Unix seconds.

As a marketplace or an analytics service reports what was used. Which services and usage types there are is configured;
the names of both go along as dimensions.
"""

from __future__ import annotations

from typing import Any

from core.event_time import format_event_time
from core.input_forms.fields import SOURCE, Formed, FormFields, Refusal, cloud_event
from core.input_forms.mapping import FormMapping, Target
from core.usage_event import Rejection

REQUIRED = ("tenant_id", "service", "usage_type", "quantity", "timestamp")
MARKS = frozenset({"service", "usage_type"})
_FIELDS = frozenset({*REQUIRED, "dimensions", "id", "source"})
_UNKNOWN = Target("", "")


def read_service(found: dict[str, Any], mapping: FormMapping, event_id: str) -> list[Formed] | Refusal:
    """Return the CloudEvent of a service form; `event_id` is used where the form names none.

    Codes: `unknown_service`, `unknown_usage_type` and those of `FormFields`.
    """
    fields = FormFields(found)
    subject, service, usage_type = fields.text("tenant_id"), fields.text("service"), fields.text("usage_type")
    time_us = fields.unix_time("timestamp")
    event_id, source = fields.name("id", event_id), fields.name("source", SOURCE)
    target = _find(fields, mapping, service, usage_type)
    quantity = fields.quantity("quantity", multiply_by=target.multiply_by)
    dimensions = fields.dimensions({"service", "usage_type", target.property})
    fields.finish(_FIELDS)
    if fields.faults:
        return Refusal(tuple(fields.faults))
    data = {**dimensions, "service": service, "usage_type": usage_type, target.property: quantity}
    value = cloud_event(event_id, source, target.event_type, subject, format_event_time(time_us), data)
    if isinstance(value, Rejection):
        return Refusal((value,))
    pointers = {
        "/subject": "/tenant_id",
        "/time": "/timestamp",
        "/type": "/usage_type",
        "/data": "/quantity",
        "/data/service": "/service",
        "/data/usage_type": "/usage_type",
        f"/data/{target.property}": "/quantity",
    }
    return [Formed(value, pointers)]


def _find(fields: FormFields, mapping: FormMapping, service: str, usage_type: str) -> Target:
    types = mapping.services.get(service)
    if types is None:
        if service:
            reason = f"no service {service[:80]!r}; there are {', '.join(mapping.services)}"
            fields.fault("unknown_service", reason, "service")
        return _UNKNOWN
    target = types.get(usage_type)
    if target is None and usage_type:
        reason = f"{service} has no usage type {usage_type[:80]!r}; there are {', '.join(types)}"
        fields.fault("unknown_usage_type", reason, "usage_type")
    return target or _UNKNOWN
