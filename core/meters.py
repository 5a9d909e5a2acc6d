"""Meters: what is counted, from which event type, how, and split by what. Owns the registry an event is judged by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Aggregation = Literal["sum", "count"]


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter. `value_property` names the quantity within an event's `data` (None for count: each event is 1).

    `dimensions` are property names within `data`; an event without one belongs to the empty value "".
    """

    meter_id: str
    unit: str
    event_type: str
    aggregation: Aggregation
    value_property: str | None
    dimensions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """The tenants and meters known at one moment; immutable, so a batch is judged by one registry throughout."""

    tenants: frozenset[str]
    meters: tuple[Meter, ...]
    by_event_type: dict[str, tuple[Meter, ...]] = field(init=False, repr=False, compare=False)
    # What `core.usage_event` found out about names under this registry; never a refusal, so that it is only speed.
    accepted_subjects: dict[str, tuple[str, str]] = field(init=False, repr=False, compare=False, default_factory=dict)
    by_id: dict[str, Meter] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grouped: dict[str, list[Meter]] = {}
        for meter in self.meters:
            grouped.setdefault(meter.event_type, []).append(meter)
        object.__setattr__(self, "by_event_type", {kind: tuple(found) for kind, found in grouped.items()})
        object.__setattr__(self, "by_id", {meter.meter_id: meter for meter in self.meters})

    @classmethod
    def of(cls, tenants: Iterable[str], meters: Iterable[Meter]) -> Registry:
        """Build a registry from any iterables."""
        return cls(frozenset(tenants), tuple(meters))
