"""What an alert about a crossed quota says. Owns its words and figures."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from alerts.domain.alert import Alert, Gauge
from alerts.domain.wording import bar, clean, figure, percent_of, percent_text, period_text, plural, read_quantity
from core.messages import QuotaCrossed
from core.thresholds import Threshold

_ALL = Decimal(100)


def describe_crossing(message: QuotaCrossed, thresholds: Sequence[Threshold]) -> Alert:
    """Turn a crossing into what people read; `thresholds` are those that hold for it, to say which comes next.

    Raises `InvalidInputError` (`invalid_quantity`, `invalid_period`).
    """
    used, at = read_quantity(message.used, "used"), read_quantity(message.threshold, "value")
    # A limit there is for percentages, and where units are watched beside one.
    limit = read_quantity(message.limit, "limit") if message.limit else None
    tenant, meter, unit = clean(message.tenant_id), clean(message.meter), plural(clean(message.unit))
    period = period_text(message.period)
    whole = limit if limit is not None else at
    is_exhausted = limit is not None and used >= limit
    percent = percent_of(used, whole)
    if message.kind == "units":
        headline = f"{tenant} has reached {figure(at)} {unit} of {meter}"
    elif at == _ALL:
        headline = f"{tenant} has used up its {meter} limit"
    else:
        headline = f"{tenant} has used {figure(at)} % of its {meter} limit"
    of = f"{figure(used)} of {figure(whole)} {unit}" if limit is not None else f"{figure(used)} {unit}"
    if limit is not None:
        of += f" ({percent_text(percent)})"
    rows = [
        ("Tenant", tenant),
        ("Meter", meter),
        ("Used", of),
        ("Threshold", f"{figure(at)} {'%' if message.kind == 'percent' else unit}"),
        ("Period", period),
    ]
    if limit is not None:
        rows.insert(4, ("Remaining", f"{figure(max(limit - used, Decimal(0)))} {unit}"))
    return Alert(
        alert_id=message.alert_id,
        kind="quota",
        tenant=tenant,
        meter=meter,
        period=message.period,
        headline=headline,
        summary=f"{of} in {period}",
        rows=tuple(rows),
        explanation_title="What happens next",
        explanation=_next_step(at, limit, message.kind, unit, thresholds, is_exhausted=is_exhausted),
        happened=f"Crossed at {clean(message.crossed_at)}",
        is_severe=is_exhausted,
        gauge=Gauge(bar(percent), percent_text(percent)) if limit is not None else None,
    )


def _next_step(
    at: Decimal, limit: Decimal | None, kind: str, unit: str, thresholds: Sequence[Threshold], *, is_exhausted: bool
) -> str:
    if is_exhausted:
        return (
            "From here on the plan decides: further usage is billed at its overage price, "
            "or refused where the limit is hard. A higher limit or the next period re-arms this alert."
        )
    bars = {threshold: bar for threshold in thresholds if (bar := threshold.bar(limit)) is not None}
    reached = at if kind == "units" or limit is None else limit * at / 100
    later = min(((bar, threshold) for threshold, bar in bars.items() if bar > reached), default=None)
    blocked = "Nothing is blocked yet." if limit is not None else "Nothing is blocked: there is no limit."
    if later is None:
        return f"{blocked} No further alert is set up for this meter in this period."
    coming = f"{blocked} The next alert comes at {figure(later[1].value)} {'%' if later[1].kind == 'percent' else unit}"
    return f"{coming}; raise the limit or upgrade the plan before that." if limit is not None else f"{coming}."
