"""Reads features and what a plan gives of them. Owns what their documents may say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from core.errors import Fault, InvalidInputError
from core.meters import Meter
from quotas.domain.entitlement import (
    Entitlement,
    EntitlementPeriod,
    Feature,
    FeatureKind,
    check_entitlement,
)
from rating.domain.fields import Fields, check_name

_KINDS = ("boolean", "metered", "static")
_ROLLING = re.compile(r"rolling:(\d{1,3})h", re.ASCII)
_PERIODS = ("billing", "month", "year")
# What a static feature may hold: enough for a level, a list of regions or a few settings.
VALUE_LENGTH_MAX = 2_000


def read_feature(feature_id: str, document: object, meters: Mapping[str, Meter], faults: list[Fault]) -> Feature:
    """Return the feature, noting every fault; a name alone is not said twice: it is the id where it is missing."""
    fields = Fields(document, f"features.{feature_id}", faults)
    if not check_name(feature_id):
        fields.fault("", "invalid_name", "a feature's name is lower-case letters, digits, _ . -")
    name = fields.text("name", default=feature_id)
    kind = fields.choice("kind", _KINDS, "invalid_choice")
    meter_id = None
    if kind == "metered":
        meter_id = fields.text("meter")
        if meter_id and meter_id not in meters:
            fields.fault("meter", "unknown_meter", f"no meter is called {meter_id!r}")
    elif kind not in _KINDS:
        # Whether it has a meter depends on the kind, so nothing is said of it.
        fields.has("meter")
    fields.finish()
    return Feature(feature_id, name, cast(FeatureKind, kind), meter_id)


def read_given(
    document: object, features: Mapping[str, Feature], path: str, faults: list[Fault]
) -> tuple[Entitlement, ...]:
    """Return what a plan gives, by feature, noting every fault.

    A boolean feature has `true` or `false`, a static one any value, a metered one `{limit, hard, period}`.
    """
    fields = Fields(document, path, faults)
    if not isinstance(document, dict):
        return ()
    given = []
    for feature_id, value in document.items():
        feature = features.get(str(feature_id))
        if feature is None:
            fields.fault(str(feature_id), "unknown_feature", f"no feature is called {feature_id!r}")
            continue
        before = len(faults)
        entitlement = _read_entitlement(feature, value, fields)
        if len(faults) == before:
            given.append(_checked(entitlement, fields))
    return tuple(sorted(given, key=lambda one: one.feature.feature_id))


def _checked(entitlement: Entitlement, fields: Fields) -> Entitlement:
    try:
        return check_entitlement(entitlement)
    except InvalidInputError as refused:
        for fault in refused.faults:
            fields.fault(f"{entitlement.feature.feature_id}.{fault.path}", fault.code, fault.reason)
        return entitlement


def _read_entitlement(feature: Feature, value: object, fields: Fields) -> Entitlement:
    if feature.kind != "metered":
        if fault := _value_fault(feature, value):
            fields.fault(feature.feature_id, fault[0], fault[1])
        return Entitlement(feature, "plan", value=value)
    one = Fields(value, fields.at(feature.feature_id), fields.faults)
    limit = one.amount("limit") if one.has("limit") else None
    hard = one.flag("hard")
    period, hours = _read_period(one)
    one.finish()
    return Entitlement(feature, "plan", limit, hard, period, hours)


def _read_period(fields: Fields) -> tuple[EntitlementPeriod, int | None]:
    rolling = _ROLLING.fullmatch(str(fields.raw("period"))) if fields.has("period") else None
    if rolling is not None:
        return "rolling", int(rolling[1])
    return cast(EntitlementPeriod, fields.choice("period", _PERIODS, "invalid_choice", "month") or "month"), None


def _value_fault(feature: Feature, value: Any) -> tuple[str, str] | None:
    if feature.kind == "boolean":
        return None if isinstance(value, bool) else ("invalid_type", f"expected true or false, got {str(value)[:60]!r}")
    if fault := _json_fault(value):
        return fault
    if len(repr(value)) > VALUE_LENGTH_MAX:
        return "too_large", f"expected at most {VALUE_LENGTH_MAX} characters"
    return None


def _json_fault(value: Any) -> tuple[str, str] | None:
    """Return why a value cannot be kept as JSON and compared by its digest, None if it can."""
    if isinstance(value, float):
        return "float_amount", f'{value} has been through a float: quote it as a string, "{value}"'
    if isinstance(value, int) and abs(value) >= 2**53:
        return "invalid_number", "a number of more than 15 digits is not the same everywhere: quote it as a string"
    if isinstance(value, str) and not value.isprintable():
        return "invalid_text", "expected printable characters"
    if value is None:
        return "missing_value", "expected a value: text, a whole number, true or false, a list or a mapping"
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((fault for item in inner if (fault := _json_fault(item))), None)
