"""Reads one meter of a catalogue. Owns what a meter's document may say; faults carry the path of their field."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import cast

from core.errors import Fault
from core.meters import (
    AGGREGATIONS,
    DEFAULT_LATENESS_SECONDS,
    FILTER_OPERATORS,
    Aggregation,
    Filter,
    FilterOperator,
    Meter,
    WeightPer,
)
from core.usage_event import NAME_LENGTH_MAX
from rating.domain.fields import Fields, check_name

# A window that stayed open for longer would be billed before it closes.
LATENESS_SECONDS_MAX = 35 * 86_400
_WEIGHTS: tuple[WeightPer, ...] = ("second", "hour", "month")
_SETS = frozenset({"in", "not_in"})
_NUMERIC = frozenset({"gt", "gte", "lt", "lte"})
_PRESENCE = frozenset({"exists", "missing"})
_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,12})?", re.ASCII)


def read_meter(meter_id: str, document: object, faults: list[Fault]) -> Meter:
    """Return the meter, with harmless stand-ins for what is wrong: every fault is noted, and the caller refuses it."""
    fields = Fields(document, f"meters.{meter_id}", faults)
    if not check_name(meter_id):
        fields.fault("", "invalid_name", "a meter's name is lower-case letters, digits, _ . -")
    unit, event_type = fields.text("unit", max_length=40), fields.text("event_type")
    aggregation = cast(Aggregation, fields.choice("aggregation", AGGREGATIONS, "unknown_aggregation"))
    needs_value = aggregation in AGGREGATIONS and aggregation != "count"
    value_property = fields.text("value_property") if needs_value else None
    weight_per: WeightPer | None = None
    if aggregation == "time_weighted":
        if fields.has("weight_per"):
            weight_per = cast(WeightPer, fields.choice("weight_per", _WEIGHTS, "unknown_weight"))
        else:
            fields.fault("weight_per", "missing_field", "a time-weighted meter says per what: second, hour or month")
    meter = Meter(
        meter_id,
        unit,
        event_type,
        aggregation,
        value_property,
        _read_dimensions(fields),
        _read_filters(fields),
        weight_per,
        _read_lateness(fields),
    )
    if aggregation not in AGGREGATIONS:
        # What else may stand there depends on the aggregation, so nothing is said of it.
        fields.has("value_property")
        fields.has("weight_per")
    fields.finish()
    return meter


def _read_dimensions(fields: Fields) -> tuple[str, ...]:
    dimensions = fields.items("dimensions")
    for index, dimension in enumerate(dimensions):
        if not isinstance(dimension, str) or not dimension or not dimension.isprintable():
            fields.fault(f"dimensions[{index}]", "invalid_text", "expected the name of a property")
        elif dimension in dimensions[:index]:
            fields.fault(f"dimensions[{index}]", "duplicate_id", f"the dimension {dimension!r} is named twice")
    return tuple(dimension for dimension in dimensions if isinstance(dimension, str))


def _read_lateness(fields: Fields) -> int:
    if not fields.has("allowed_lateness_seconds"):
        return DEFAULT_LATENESS_SECONDS
    seconds = fields.raw("allowed_lateness_seconds")
    if type(seconds) is not int or not 0 <= seconds <= LATENESS_SECONDS_MAX:
        reason = f"expected whole seconds from 0 to {LATENESS_SECONDS_MAX}, got {str(seconds)[:60]}"
        fields.fault("allowed_lateness_seconds", "invalid_number", reason)
        return DEFAULT_LATENESS_SECONDS
    return seconds


def _read_filters(fields: Fields) -> tuple[Filter, ...]:
    found = []
    for index, document in enumerate(fields.items("filters")):
        one = Fields(document, fields.at(f"filters[{index}]"), fields.faults)
        name = one.text("property")
        operator = one.choice("operator", FILTER_OPERATORS, "unknown_operator")
        values = [_read_value(one, f"values[{at}]", value) for at, value in enumerate(one.items("values"))]
        one.finish()
        if operator:
            _check_values(one, operator, values)
            found.append(Filter(name, cast(FilterOperator, operator), tuple(values)))
    return tuple(found)


def _read_value(fields: Fields, name: str, value: object) -> str:
    """Return a value as it compares: the text a dimension of the same value would have."""
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    if isinstance(value, float):
        fields.fault(name, "float_amount", f'{value} has been through a float: quote it as a string, "{value}"')
        return ""
    if not isinstance(value, str) or len(value) > NAME_LENGTH_MAX or not value.isprintable():
        fields.fault(name, "invalid_text", f"expected a number, a boolean or up to {NAME_LENGTH_MAX} characters")
        return ""
    return value


def _check_values(fields: Fields, operator: str, values: list[str]) -> None:
    if operator in _PRESENCE:
        if values:
            fields.fault("values", "unexpected_value", f"{operator} compares with nothing")
    elif operator in _SETS:
        if not values:
            fields.fault("values", "missing_value", f"{operator} needs at least one value")
        for index, value in enumerate(values):
            if value in values[:index]:
                fields.fault(f"values[{index}]", "duplicate_id", f"{value!r} is named twice")
    elif len(values) != 1:
        fields.fault("values", "one_value_expected", f"{operator} compares with exactly one value, got {len(values)}")
    elif operator in _NUMERIC and not _NUMBER.fullmatch(values[0]):
        fields.fault("values[0]", "invalid_number", f"{operator} needs a plain decimal number, got {values[0][:60]!r}")
        values[0] = str(Decimal(0))
