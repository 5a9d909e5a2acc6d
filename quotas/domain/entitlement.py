"""Entitlements: what a tenant may use of a feature. Owns their kinds and what makes sense of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from core.calendar import Calendar
from core.errors import Fault, InvalidInputError
from core.live_quota import HOURS_KEPT
from core.quantity import LIMIT, scale_quantity
from quotas.domain.span import Span, resolve_span

FeatureKind = Literal["metered", "boolean", "static"]
EntitlementPeriod = Literal["month", "billing", "year", "rolling"]
Origin = Literal["tenant", "plan", "limit", "none"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SPAN = {"month": "current_month", "billing": "billing_period", "year": "current_year"}


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that is sold: counted by a meter (metered), on or off (boolean), or a value (static)."""

    feature_id: str
    name: str
    kind: FeatureKind
    meter_id: str | None = None


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a tenant has of a feature.

    Metered: `limit` per `period` (None: unlimited), `hard` stops what goes beyond; `rolling_hours` for rolling periods.
    Boolean and static: `value`. `origin` says who gave it: the tenant's own override, its plan, the plan's limit of the
    meter (`quota_limits`), or nobody.
    """

    feature: Feature
    origin: Origin
    limit: Decimal | None = None
    hard: bool = False
    period: EntitlementPeriod = "month"
    rolling_hours: int | None = None
    value: Any = None

    def span(self, calendar: Calendar, now: datetime) -> Span:
        """Return the span that a metered entitlement counts now."""
        return resolve_span(_SPAN.get(self.period, f"rolling:{self.rolling_hours}h"), calendar, now)


def check_feature(feature: Feature) -> Feature:
    """Return the feature; raises `InvalidInputError` with all faults."""
    faults = []
    if not _NAME.fullmatch(feature.feature_id):
        faults.append(Fault("invalid_feature", f"no feature can be called {feature.feature_id[:80]!r}", "feature_id"))
    if not 1 <= len(feature.name) <= 200 or not feature.name.isprintable():
        faults.append(Fault("invalid_name", "expected 1 to 200 printable characters", "name"))
    if (feature.kind == "metered") != (feature.meter_id is not None):
        faults.append(Fault("invalid_meter", "a metered feature has a meter, and no other has", "meter_id"))
    if faults:
        raise InvalidInputError(faults)
    return feature


def check_entitlement(entitlement: Entitlement) -> Entitlement:
    """Return the entitlement; raises `InvalidInputError` with all faults."""
    faults = []
    metered = entitlement.feature.kind == "metered"
    if entitlement.limit is not None and (not metered or isinstance(scale_quantity(entitlement.limit), str)):
        faults.append(Fault("invalid_limit", f"expected a quantity below {LIMIT}, of a metered feature", "limit"))
    if entitlement.hard and entitlement.limit is None:
        faults.append(Fault("invalid_limit", "only a limit can be hard", "hard"))
    hours = entitlement.rolling_hours
    if (entitlement.period == "rolling") != (hours is not None) or not 1 <= (hours or 1) <= HOURS_KEPT:
        faults.append(Fault("invalid_period", f"a rolling period has 1 to {HOURS_KEPT} hours", "rolling_hours"))
    if metered and entitlement.value is not None:
        faults.append(Fault("invalid_value", "a metered feature has a limit, not a value", "value"))
    if entitlement.feature.kind == "boolean" and not isinstance(entitlement.value, bool):
        faults.append(Fault("invalid_value", "expected true or false", "value"))
    if entitlement.feature.kind == "static" and entitlement.value is None:
        faults.append(Fault("invalid_value", "expected a JSON value", "value"))
    if faults:
        raise InvalidInputError(faults)
    return entitlement
