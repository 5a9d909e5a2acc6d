"""Judges a meter's closed hours, tenant by tenant, and claims one alert per stretch of unusual usage.

Hours are judged once, in order: what arrives late for a judged hour changes the history of later ones and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from alerts.claim_alert import prepare_claim
from alerts.domain.anomaly import HISTORY_DAYS, Anomaly, Tally, judge
from alerts.domain.episodes import Episode, follow
from alerts.domain.messages import UsageAnomaly
from alerts.ports import AnomalyStates, HeldMeter, HourlyUsage, UsageHistory
from core.alert_rules import AlertRules
from core.clock import Clock
from core.meters import Meter
from core.period import Period, format_instant

HOUR = timedelta(hours=1)
_HOURS_PER_DAY = 24
_HISTORY = timedelta(days=HISTORY_DAYS)
# After a long outage the hours before are too old to be news.
_LOOK_BACK = timedelta(days=2)
_STATISTIC_DIGITS = Decimal("0.000001")


async def watch_anomalies(
    meter: Meter,
    watermark: datetime,
    *,
    rules: AlertRules,
    usage: UsageHistory,
    states: AnomalyStates,
    channels: Collection[str],
    clock: Clock,
    parts: int = 1,
) -> int:
    """Judge the meter's hours that have closed since the last time; returns how many alerts that gave.

    An hour is closed when the watermark has passed its end and the meter's lateness. The first time nothing is judged:
    what was before this meter was watched is no news.
    """
    closed = _hour_of(watermark - timedelta(seconds=meter.allowed_lateness_seconds))
    alerts = 0
    async with states.hold(meter.meter_id) as held:
        if held is None or (held.judged_until is not None and held.judged_until >= closed):
            return 0
        if held.judged_until is not None:
            begin = max(held.judged_until, closed - _LOOK_BACK)
            for part in range(parts):
                found = await usage.hourly(meter.meter_id, begin - _HISTORY, closed, part=part, parts=parts)
                for tenant_id, hours in found.items():
                    if rules.wants_anomalies(tenant_id, meter.meter_id):
                        watch = _TenantWatch(tenant_id, meter, held, rules, channels, clock)
                        alerts += await watch.judge(hours, begin, closed)
                        # Counting takes a while, and others share the loop.
                        await asyncio.sleep(0)
        await held.advance(closed)
    return alerts


class _TenantWatch:
    """One tenant's hours of one meter."""

    def __init__(
        self,
        tenant_id: str,
        meter: Meter,
        held: HeldMeter,
        rules: AlertRules,
        channels: Collection[str],
        clock: Clock,
    ) -> None:
        self._tenant_id, self._meter, self._held = tenant_id, meter, held
        self._rules, self._channels, self._clock = rules, channels, clock

    async def judge(self, hours: Sequence[HourlyUsage], begin: datetime, closed: datetime) -> int:
        """Judge the hours from `begin` to `closed`; returns how many alerts that gave."""
        first = hours[0].hour_start
        used = {hour.hour_start: hour for hour in hours}
        every = [first + HOUR * i for i in range((closed - first) // HOUR)]
        tallies = [_tally(used.get(start)) for start in every]
        going_on = {one.kind: one for one in self._held.going_on.get(self._tenant_id, ())}
        changed: dict[tuple[str, datetime], Episode] = {}
        alerts = 0
        for i in range(max(0, (begin - first) // HOUR), len(every)):
            window = Period(every[i], every[i] + HOUR)
            anomaly = judge(tallies[:i], tallies[i], windows_per_day=_HOURS_PER_DAY)
            followed = follow(list(going_on.values()), anomaly, heard=tallies[i].events > 0, window=window)
            changed |= {(one.kind, one.started_at): one for one in followed.changed}
            going_on |= {one.kind: one for one in followed.changed}
            going_on = {kind: one for kind, one in going_on.items() if one.ended_at is None}
            if followed.begun is not None and anomaly is not None:
                hour = used.get(window.start)
                alerts += await self._tell(followed.begun, anomaly, window, hour, known_hours=i)
        if changed:
            await self._held.save(self._tenant_id, list(changed.values()))
        return alerts

    async def _tell(
        self, begun: Episode, anomaly: Anomaly, window: Period, hour: HourlyUsage | None, *, known_hours: int
    ) -> bool:
        now, reference = self._clock.now(), anomaly.reference
        # As far back as was compared: weeks need all of the history, days and hours half of it.
        days = min(known_hours // _HOURS_PER_DAY, HISTORY_DAYS if reference.kind == "week" else HISTORY_DAYS // 2)
        cause = UsageAnomaly(
            tenant_id=self._tenant_id,
            meter=self._meter.meter_id,
            unit=self._meter.unit,
            kind=anomaly.kind,
            started_at=format_instant(begun.started_at),
            window_start=format_instant(begun.started_at),
            window_end=format_instant(window.end),
            quantity=f"{hour.quantity.normalize():f}" if hour is not None else "0",
            usual=_statistic(reference.usual),
            spread=_statistic(reference.spread),
            compared=reference.count,
            compared_with=reference.kind,
            history_days=days,
            longest_gap_hours=anomaly.longest_gap,
            found_at=format_instant(now.replace(microsecond=0)),
        )
        return await self._held.claim(prepare_claim(cause, channels=self._channels, rules=self._rules), now)


def _tally(hour: HourlyUsage | None) -> Tally:
    # Corrections may take more than there was out of an hour; less than nothing is nothing to a statistic.
    if hour is None or hour.events <= 0 or hour.quantity < 0:
        return Tally(0.0, 0)
    return Tally(float(hour.quantity), hour.events)


def _statistic(value: float) -> str:
    """Write a statistic of floats as the decimal text of a message: six places at most."""
    return f"{Decimal(str(round(value, 6))).quantize(_STATISTIC_DIGITS).normalize():f}"


def _hour_of(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
