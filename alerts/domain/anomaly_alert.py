"""What an alert about unusual usage says: what was seen, what is usual, and where that comes from."""

from __future__ import annotations

from decimal import Decimal

from alerts.domain.alert import Alert
from alerts.domain.messages import UsageAnomaly
from alerts.domain.wording import about, clean, figure, hours_text, instant_text, plural, read_instant, read_quantity


def describe_anomaly(message: UsageAnomaly) -> Alert:
    """Turn an anomaly into what people read; raises `InvalidInputError` (`invalid_quantity`, `invalid_time`)."""
    tenant, meter, unit = clean(message.tenant_id), clean(message.meter), plural(clean(message.unit))
    start, end = read_instant(message.window_start, "window_start"), read_instant(message.window_end, "window_end")
    used = read_quantity(message.quantity, "quantity", below_zero=True)
    usual, spread = read_quantity(message.usual, "usual"), read_quantity(message.spread, "spread")
    hours = round((end - start).total_seconds() / 3_600)
    usually = f"{about(usual)} ± {about(spread)} {unit}" if spread else f"{about(usual)} {unit}"
    if message.kind == "silence":
        headline = f"{tenant} has stopped using {meter}"
        summary = f"no {meter} for {hours} h, since {instant_text(start)}"
        seen = f"None since {instant_text(start)}, {hours} h"
    else:
        direction = "jumped" if message.kind == "jump" else "dropped"
        headline = f"{tenant}'s {meter} has {direction}{_times(used, usual, message.kind)}"
        summary = f"{figure(used)} {unit} {hours_text(start, end)}"
        seen = f"{figure(used)} {unit} {hours_text(start, end)}"
    return Alert(
        alert_id=message.alert_id,
        kind="anomaly",
        tenant=tenant,
        meter=meter,
        period=message.window_start,
        headline=headline,
        summary=f"{summary}; usual {_when(message, hours)}: {usually}",
        rows=(("Tenant", tenant), ("Meter", meter), ("Seen", seen), ("Usual", f"{usually} {_when(message, hours)}")),
        explanation_title="Why this is told",
        explanation=_explain(message),
        happened=f"Found at {clean(message.found_at)}",
        is_severe=message.kind == "silence",
    )


def _times(used: Decimal, usual: Decimal, kind: str) -> str:
    """Return "to 10.8 times the usual", rounded to what it is worth."""
    if usual <= 0:
        return ""
    if kind == "jump":
        return f" to {about(used / usual)} times the usual"
    return f" to {about(used * 100 / usual)} % of the usual"


def _when(message: UsageAnomaly, hours: int) -> str:
    days = message.history_days
    if message.compared_with == "before":
        return (
            f"in the {message.compared} stretches of {hours} h before"
            if message.kind == "silence"
            else (f"in the {message.compared} hours before")
        )
    what = "these hours" if hours > 1 else "this hour"
    if message.compared_with == "week":
        return f"at {what} of the week over the last {message.compared} weeks"
    return f"at {what} over the last {days} days"


def _explain(message: UsageAnomaly) -> str:
    again = "One message per stretch: the next comes only after usage has been as usual again."
    if message.kind == "silence":
        gap = message.longest_gap_hours
        before = f"the longest pause before was {gap} h" if gap else "there was no hour without before"
        return f"There was always usage at such hours, and {before}. Usage that arrives late is still counted. {again}"
    farther = "more" if message.kind == "jump" else "less"
    return f"This is far {farther} than this meter's own ups and downs of {message.history_days} days explain. {again}"
