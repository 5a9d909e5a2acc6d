"""Lays running costs over money thresholds and claims an alert where one was reached, exactly once per arming."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from alerts.claim_alert import prepare_claim
from alerts.domain.messages import SpendCrossed
from alerts.domain.spend import ChargeCost, SpendKey, SpendState, add_up, judge_spend, key_of
from alerts.ports import CostBook, SpendStates
from core.alert_rules import AlertRules
from core.clock import Clock
from core.period import format_instant


async def watch_spend(
    months: Collection[tuple[str, str]],
    *,
    rules: AlertRules,
    costs: CostBook,
    states: SpendStates,
    channels: Collection[str],
    clock: Clock,
) -> int:
    """Judge each (tenant, month) by its present cost; returns how many thresholds were reached.

    State and alert are written in one transaction. Judging again, or an older cost after a newer one, changes nothing.
    """
    watched = {month: keys for month in months if (keys := sorted({key_of(rule) for rule in rules.money_of(month[0])}))}
    if not watched:
        return 0
    found = await costs.costs(watched)
    known = await states.read(watched)
    crossings = 0
    for month, keys in watched.items():
        charges = found.get(month, ())
        # Nearly always nothing has changed: only what has is worth a lock.
        if charges and _changes(keys, charges, known.get(month, {})):
            crossings += await _judge_month(month, keys, charges, rules, states, channels, clock)
    return crossings


def _changes(keys: Sequence[SpendKey], charges: Sequence[ChargeCost], known: Mapping[SpendKey, SpendState]) -> bool:
    version = max(charge.version for charge in charges)
    for key in keys:
        before = known.get(key)
        after = judge_spend(before, add_up(key, charges), version, key.threshold).state
        if (before is None) != (after is None) or (before and after and before.reached != after.reached):
            return True
    return False


async def _judge_month(
    month: tuple[str, str],
    keys: Sequence[SpendKey],
    charges: Sequence[ChargeCost],
    rules: AlertRules,
    states: SpendStates,
    channels: Collection[str],
    clock: Clock,
) -> int:
    tenant_id, period = month
    version = max(charge.version for charge in charges)
    crossings = 0
    async with states.hold(tenant_id, period) as held:
        for key in keys:
            amount, now = add_up(key, charges), clock.now()
            judged = judge_spend(held.states.get(key), amount, version, key.threshold)
            if judged.state is None or judged.state == held.states.get(key):
                continue
            await held.save(key, judged.state, now)
            if judged.is_crossing:
                cause = SpendCrossed(
                    tenant_id=tenant_id,
                    scope=key.scope,
                    period=period,
                    currency=key.currency,
                    threshold=f"{key.threshold.normalize():f}",
                    amount=f"{amount.normalize():f}",
                    crossed_at=format_instant(now.replace(microsecond=0)),
                    arming=judged.state.arming,
                )
                await held.claim(prepare_claim(cause, channels=channels, rules=rules), now)
                crossings += 1
    return crossings
