"""Alert rules: when people are told about a tenant, and through which channels. Owns which rule holds for whom.

For each kind the most specific level at which any rule stands decides alone: tenant and meter, then tenant, then meter,
then everyone. So a disabled rule silences its level, and thresholds of one kind say nothing about another kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, get_args

from core.thresholds import Threshold, ThresholdKind

RuleKind = Literal["percent", "units", "money", "anomaly"]
RULE_KINDS: tuple[RuleKind, ...] = get_args(RuleKind)
CHANNELS = ("slack", "email", "webhook")


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule. `tenant_id` None means every tenant, `meter_id` None every meter, no `channels` every channel there is.

    `value` is the threshold: percent of the limit, units of the meter, or money in `currency`; None for anomalies.
    Money is of the meter's charges, of one charge (`charge_id`), or with neither of all the tenant pays for the month.
    """

    rule_id: str
    kind: RuleKind
    value: Decimal | None = None
    tenant_id: str | None = None
    meter_id: str | None = None
    charge_id: str | None = None
    currency: str | None = None
    channels: tuple[str, ...] = ()
    enabled: bool = True

    @property
    def scope(self) -> str:
        """What a money rule adds up: `total`, `meter:<id>` or `charge:<id>`."""
        if self.charge_id is not None:
            return f"charge:{self.charge_id}"
        return "total" if self.meter_id is None else f"meter:{self.meter_id}"


_Level = tuple[RuleKind, str | None, str | None]


@dataclass(frozen=True)
class AlertRules:
    """All rules at one moment, found by whom they are for; `default_percentages` hold where no rule of percent does."""

    rules: tuple[AlertRule, ...] = ()
    default_percentages: tuple[int, ...] = ()
    _by_level: dict[_Level, list[AlertRule]] = field(default_factory=dict, repr=False, compare=False)
    _money: dict[str | None, list[AlertRule]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, rules: Iterable[AlertRule], default_percentages: Iterable[int]) -> AlertRules:
        """Return the rules, ready to be asked."""
        found = cls(tuple(rules), tuple(sorted(set(default_percentages))))
        for rule in found.rules:
            if rule.kind == "money":
                found._money.setdefault(rule.tenant_id, []).append(rule)
            else:
                found._by_level.setdefault((rule.kind, rule.tenant_id, rule.meter_id), []).append(rule)
        return found

    def thresholds_of(self, tenant: str, meter: str) -> tuple[Threshold, ...]:
        """Return the thresholds in percent and units for a tenant's meter, lowest first (`core.thresholds`)."""
        kinds: tuple[ThresholdKind, ...] = ("percent", "units")
        thresholds = set()
        for kind in kinds:
            level = self._level(kind, tenant, meter)
            thresholds |= {
                Threshold(kind, rule.value) for rule in level or () if rule.enabled and rule.value is not None
            }
            if level is None and kind == "percent":
                thresholds |= {Threshold("percent", Decimal(percent)) for percent in self.default_percentages}
        return tuple(sorted(thresholds))

    def money_of(self, tenant: str) -> list[AlertRule]:
        """Return the money rules for a tenant: per scope and currency its own, else those for everyone."""
        chosen: dict[tuple[str, str | None], tuple[bool, list[AlertRule]]] = {}
        for rule in (*self._money.get(None, ()), *self._money.get(tenant, ())):
            own, key = rule.tenant_id is not None, (rule.scope, rule.currency)
            known = chosen.get(key)
            if known is None or own > known[0]:
                chosen[key] = (own, [rule])
            elif own == known[0]:
                known[1].append(rule)
        return [rule for _, level in chosen.values() for rule in level if rule.enabled]

    def wants_anomalies(self, tenant: str, meter: str) -> bool:
        """Say whether anomalies of a tenant's meter are told; they are unless a rule is disabled."""
        level = self._level("anomaly", tenant, meter)
        return level is None or any(rule.enabled for rule in level)

    def channels_of(
        self, kind: RuleKind, tenant: str, meter: str, value: Decimal | None, currency: str | None = None
    ) -> tuple[str, ...]:
        """Return the channels that an alert of this threshold goes to; empty means every channel there is.

        `meter` is what the rule is about; for money the id of the meter or charge, "" for the total. A rule that has
        gone since the threshold was reached leaves every channel: better told too widely than not at all.
        """
        if kind == "money":
            level: Iterable[AlertRule] = [
                rule for rule in self.money_of(tenant) if (rule.meter_id or rule.charge_id or "") == meter
            ]
        else:
            level = self._level(kind, tenant, meter) or ()
        told = [rule.channels for rule in level if rule.enabled and (rule.value, rule.currency) == (value, currency)]
        return () if not told or () in told else tuple(sorted({channel for channels in told for channel in channels}))

    def _level(self, kind: RuleKind, tenant: str, meter: str) -> list[AlertRule] | None:
        return next((found for level in _levels(kind, tenant, meter) if (found := self._by_level.get(level))), None)


def _levels(kind: RuleKind, tenant: str, meter: str) -> Iterator[_Level]:
    yield kind, tenant, meter
    yield kind, tenant, None
    yield kind, None, meter
    yield kind, None, None
