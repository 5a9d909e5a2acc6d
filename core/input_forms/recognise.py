"""Tells input forms apart by the names of their fields. Owns that nothing is guessed: two forms at once are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from core.input_forms import bundle, period, plain, service_usage
from core.input_forms.fields import Formed, Refusal, decode_json
from core.input_forms.mapping import FormMapping
from core.meters import Registry
from core.usage_event import CloudEvent, Rejection

FormName = Literal["cloudevent", "plain", "bundle", "service", "period"]
_CLOUD_EVENT = CloudEvent.__struct_fields__
_CLOUD_EVENT_MARKS = frozenset({"specversion", "type", "subject", "time", "data", "data_base64"})
_REQUIRED: dict[FormName, tuple[str, ...]] = {
    "cloudevent": _CLOUD_EVENT,
    "plain": plain.REQUIRED,
    "bundle": bundle.REQUIRED,
    "service": service_usage.REQUIRED,
    "period": period.REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Recognised:
    """The form that was found, its id, and the CloudEvents that it became (one record: they share a tenant)."""

    form: FormName
    form_id: str
    events: list[Formed]


def read_form(raw: bytes, registry: Registry, mapping: FormMapping, event_id: str) -> Recognised | Refusal | None:
    """Return what a form became, None for a CloudEvent (to be judged as it is), or every fault found.

    `event_id` names it where it brings no id. Codes: `empty`, `not_json`, `not_an_object`, `unknown_form` with what
    the nearest form misses, `ambiguous_form`, and those of the forms.
    """
    found = decode_json(raw)
    if isinstance(found, Rejection):
        return Refusal((found,))
    if not isinstance(found, dict):
        return Refusal((Rejection("not_an_object", "expected a JSON object"),))
    form = recognise(found, mapping)
    if isinstance(form, Refusal):
        return form
    if form == "cloudevent":
        return None
    events = _read(form, found, registry, mapping, event_id)
    if isinstance(events, Refusal):
        return events
    return Recognised(form, found.get("id") or event_id, events)


def recognise(found: dict[str, Any], mapping: FormMapping) -> FormName | Refusal:
    """Return the form whose own fields stand in an object; codes `unknown_form`, `ambiguous_form`."""
    if "specversion" in found:
        # A CloudEvent may carry extension attributes under any name.
        return "cloudevent"
    marks = {
        "cloudevent": found.keys() & _CLOUD_EVENT_MARKS,
        "plain": found.keys() & plain.MARKS,
        "bundle": found.keys() & mapping.bundle.keys(),
        "service": found.keys() & service_usage.MARKS,
        "period": found.keys() & period.MARKS,
    }
    forms: list[Any] = [form for form, names in marks.items() if names]
    if len(forms) == 1:
        return forms[0]  # type: ignore[no-any-return]
    if not forms:
        return _refuse_unknown(found, mapping)
    told = "; ".join(f"{', '.join(sorted(marks[form]))} of the {form} form" for form in forms)
    faults = [Rejection("ambiguous_form", f"fields of several forms at once: {told}"[:500])]
    names = sorted(name for form in forms for name in marks[form])
    faults += [Rejection("ambiguous_form", f"{name} belongs to one of several forms", f"/{name}") for name in names]
    return Refusal(tuple(faults))


def _read(
    form: FormName, found: dict[str, Any], registry: Registry, mapping: FormMapping, event_id: str
) -> list[Formed] | Refusal:
    match form:
        case "plain":
            return plain.read_plain(found, registry, event_id)
        case "bundle":
            return bundle.read_bundle(found, mapping, event_id)
        case "service":
            return service_usage.read_service(found, mapping, event_id)
    return period.read_period(found, mapping, event_id)


def _refuse_unknown(found: dict[str, Any], mapping: FormMapping) -> Refusal:
    # Most fields in common; among equals the earlier one, which is the more usual.
    nearest = max(_REQUIRED, key=lambda form: len(found.keys() & set(_REQUIRED[form])))
    missing = [name for name in _REQUIRED[nearest] if found.get(name) is None]
    faults = [Rejection("unknown_form", f"no form of usage has these fields; nearest is the {nearest} form")]
    faults += [Rejection("missing_field", f"{name} is missing", f"/{name}") for name in missing]
    if nearest == "plain" and "value" not in found:
        faults.append(Rejection("missing_field", "value is missing", "/value"))
    return Refusal(tuple(faults))
