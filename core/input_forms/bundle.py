"""The bundle form: one timestamp with several quantities, `tenant_id, timestamp` and at least one of the configured.

As a node reports what a tenant used since its last report. Every quantity becomes an event of its own, so that each is
counted by the meter that counts the same thing from elsewhere, and can be corrected alone. Its id is the bundle's id
with the quantity's name behind a colon: the same bundle sent again is the same events.
"""

from __future__ import annotations

from typing import Any

from core.input_forms.fields import SOURCE, Formed, FormFields, Refusal, cloud_event, escape
from core.input_forms.mapping import FormMapping
from core.usage_event import Rejection

REQUIRED = ("tenant_id", "timestamp")
_FIELDS = frozenset({*REQUIRED, "dimensions", "id", "source"})


def read_bundle(found: dict[str, Any], mapping: FormMapping, event_id: str) -> list[Formed] | Refusal:
    """Return a CloudEvent per quantity; `event_id` is used where the form names none. A quantity of null is absent.

    Codes: `missing_field` (no quantity at all) and those of `FormFields`.
    """
    fields = FormFields(found)
    subject = fields.text("tenant_id")
    fields.event_time("timestamp")
    event_id, source = fields.name("id", event_id), fields.name("source", SOURCE)
    fields.finish(_FIELDS | mapping.bundle.keys())
    targets = {name: target for name, target in mapping.bundle.items() if found.get(name) is not None}
    if not targets:
        fields.faults.append(Rejection("missing_field", f"none of {', '.join(mapping.bundle)} is given"))
    quantities = {name: fields.quantity(name, multiply_by=target.multiply_by) for name, target in targets.items()}
    dimensions = fields.dimensions({target.property for target in targets.values()})
    if fields.faults:
        return Refusal(tuple(fields.faults))
    formed = []
    for name, target in targets.items():
        data = {**dimensions, target.property: quantities[name]}
        value = cloud_event(f"{event_id}:{name}", source, target.event_type, subject, found["timestamp"], data)
        if isinstance(value, Rejection):
            return Refusal((value,))
        back = f"/{escape(name)}"
        pointers = {"/subject": "/tenant_id", "/time": "/timestamp", "/type": back, "/data": back}
        formed.append(Formed(value, {**pointers, f"/data/{target.property}": back}))
    return formed
