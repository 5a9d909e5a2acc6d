"""Meters: what is counted, from which event type, how, and split by what. Owns the registry an event is judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, get_args

from core.calendar import UTC_MONTHS, Calendar

Aggregation = Literal["sum", "count", "average", "unique", "max", "min", "latest", "time_weighted"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
# Totals of these add up from their parts (an average by its sum and its events), so minute windows suffice. All others
# need every value again when one is taken out, so each event leaves a sample.
ADDITIVE: frozenset[str] = frozenset({"sum", "count", "average"})

FilterOperator = Literal["eq", "ne", "in", "not_in", "gt", "gte", "lt", "lte", "exists", "missing"]
FILTER_OPERATORS: tuple[FilterOperator, ...] = get_args(FilterOperator)
WeightPer = Literal["second", "hour", "month"]
DEFAULT_LATENESS_SECONDS = 3_600
# What becomes of a meter's value: added up by the minute, a number kept as a sample, or a distinct text kept as one.
ADDS_UP, NUMBER, UNIQUE = 0, 1, 2
# What the hot path needs of a meter: id, value property, dimensions, the meter itself if it has filters, kind of value.
Reading = tuple[str, "str | None", tuple[str, ...], "Meter | None", int]


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on one property of an event's data.

    Texts compare as dimension values do (a boolean is "true" or "false", a number its digits; null counts as missing);
    `gt`, `gte`, `lt`, `lte` compare numbers and are false for anything else. A missing property satisfies only
    `missing`, `ne` and `not_in`.
    """

    property: str
    operator: FilterOperator
    values: tuple[str, ...] = ()

    def holds(self, data: Mapping[str, Any]) -> bool:
        """Say whether the data satisfy the condition."""
        value = data.get(self.property)
        operator = self.operator
        if value is None:
            return operator in ("missing", "ne", "not_in")
        if operator == "exists":
            return True
        if operator == "missing":
            return False
        if operator in ("eq", "in"):
            return _as_text(value) in self.values
        if operator in ("ne", "not_in"):
            return _as_text(value) not in self.values
        number = _as_number(value)
        if number is None:
            return False
        bound = Decimal(self.values[0])
        if operator == "gt":
            return number > bound
        if operator == "gte":
            return number >= bound
        return number < bound if operator == "lt" else number <= bound


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter. `value_property` names the quantity within an event's `data` (None for count: each event is 1).

    For `unique` it names the text, number or boolean whose distinct values are counted. `dimensions` are property
    names within `data`; an event without one belongs to the empty value "". All `filters` must hold for an event to
    feed the meter. `weight_per` is the time unit of a time-weighted meter (GB-months: `month`, the length of the period
    asked for). A window stays open for `allowed_lateness_seconds` of event time after its end.
    """

    meter_id: str
    unit: str
    event_type: str
    aggregation: Aggregation
    value_property: str | None
    dimensions: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    weight_per: WeightPer | None = None
    allowed_lateness_seconds: int = DEFAULT_LATENESS_SECONDS

    @property
    def is_additive(self) -> bool:
        """Whether totals add up from minute windows, rather than from samples."""
        return self.aggregation in ADDITIVE

    def feeds(self, data: Mapping[str, Any]) -> bool:
        """Say whether an event with these data passes the filters."""
        return all(condition.holds(data) for condition in self.filters)


@dataclass(frozen=True)
class Registry:
    """The tenants and meters known at one moment; immutable, so a batch is judged by one registry throughout.

    `calendars` has the tenants whose months are not those of UTC, or whose billing periods do not begin on the first.
    """

    tenants: frozenset[str]
    meters: tuple[Meter, ...]
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    by_event_type: dict[str, tuple[Meter, ...]] = field(init=False, repr=False, compare=False)
    readings: dict[str, tuple[Reading, ...]] = field(init=False, repr=False, compare=False)
    # What `core.usage_event` found out about names under this registry; never a refusal, so that it is only speed.
    accepted_subjects: dict[str, tuple[str, str]] = field(init=False, repr=False, compare=False, default_factory=dict)
    by_id: dict[str, Meter] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grouped: dict[str, list[Meter]] = {}
        for meter in self.meters:
            grouped.setdefault(meter.event_type, []).append(meter)
        object.__setattr__(self, "by_event_type", {kind: tuple(found) for kind, found in grouped.items()})
        readings = {kind: tuple(map(_reading, found)) for kind, found in grouped.items()}
        object.__setattr__(self, "readings", readings)
        object.__setattr__(self, "by_id", {meter.meter_id: meter for meter in self.meters})

    @classmethod
    def of(
        cls, tenants: Iterable[str], meters: Iterable[Meter], calendars: Mapping[str, Calendar] | None = None
    ) -> Registry:
        """Build a registry from any iterables."""
        return cls(frozenset(tenants), tuple(meters), calendars or {})

    def calendar_of(self, tenant: str) -> Calendar:
        """Return how the tenant's time is cut into months and billing periods."""
        return self.calendars.get(tenant, UTC_MONTHS)


def _reading(meter: Meter) -> Reading:
    kind = ADDS_UP if meter.is_additive else UNIQUE if meter.aggregation == "unique" else NUMBER
    return (meter.meter_id, meter.value_property, meter.dimensions, meter if meter.filters else None, kind)


def _as_text(value: object) -> str | None:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return str(value) if type(value) in (int, Decimal) else None


def _as_number(value: object) -> Decimal | None:
    if type(value) is int:
        return Decimal(value)
    if type(value) is str:
        try:
            value = Decimal(value)
        except ArithmeticError:
            return None
    return value if type(value) is Decimal and not value.is_nan() else None
