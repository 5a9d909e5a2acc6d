"""When a running cost has reached an amount, exactly once until it was below again. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from core.alert_rules import AlertRule


@dataclass(frozen=True, slots=True)
class ChargeCost:
    """What one charge of a plan costs so far; `meter` is "" for a charge without one. Newer versions are higher."""

    charge_id: str
    meter: str
    amount: Decimal
    currency: str
    version: int


class SpendKey(NamedTuple):
    """A threshold of a tenant's month: what is added up, in which currency, and the amount."""

    scope: str
    currency: str
    threshold: Decimal


@dataclass(frozen=True, slots=True)
class SpendState:
    """Whether the threshold is reached as of the cost of `version`; `arming` counts how often it was left again."""

    reached: bool
    arming: int
    amount: Decimal
    version: int


@dataclass(frozen=True, slots=True)
class Judged:
    """The state from now on, None if there is nothing to keep, and whether the threshold was reached just now."""

    state: SpendState | None
    is_crossing: bool


def key_of(rule: AlertRule) -> SpendKey:
    """Return what a money rule watches."""
    assert rule.value is not None
    assert rule.currency is not None
    return SpendKey(rule.scope, rule.currency, rule.value)


def add_up(key: SpendKey, costs: Iterable[ChargeCost]) -> Decimal:
    """Return the running cost within a scope; costs in other currencies are none of it."""
    kind, _, name = key.scope.partition(":")
    return sum(
        (
            cost.amount
            for cost in costs
            if cost.currency == key.currency
            and (kind == "total" or (cost.meter if kind == "meter" else cost.charge_id) == name)
        ),
        Decimal(0),
    )


def judge_spend(known: SpendState | None, amount: Decimal, version: int, threshold: Decimal) -> Judged:
    """Lay an amount over what is known of a threshold. An older version than the known one changes nothing.

    Going below re-arms: the next time it is reached is another crossing, with another arming.
    """
    is_reached = amount >= threshold
    if known is None:
        return Judged(SpendState(True, 0, amount, version), True) if is_reached else Judged(None, False)
    if version < known.version:
        return Judged(known, False)
    arming = known.arming + (known.reached and not is_reached)
    return Judged(SpendState(is_reached, arming, amount, version), is_reached and not known.reached)
