"""What an alert about a running cost says. Owns its words and figures."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from alerts.domain.alert import Alert, Gauge
from alerts.domain.messages import SpendCrossed
from alerts.domain.wording import amount, bar, clean, percent_of, percent_text, period_text, read_quantity
from core.money import round_to_minor


def describe_spend(message: SpendCrossed, thresholds: Sequence[Decimal]) -> Alert:
    """Turn a crossing into what people read; `thresholds` are those of its scope, to say which comes next.

    Raises `InvalidInputError` (`invalid_quantity`, `invalid_period`, `unknown_currency`).
    """
    currency = clean(message.currency)
    cost = round_to_minor(read_quantity(message.amount, "amount"), currency)
    at = read_quantity(message.threshold, "threshold")
    tenant, period, scope = clean(message.tenant_id), period_text(message.period), clean(message.scope)
    what, _, name = scope.partition(":")
    of = {"total": "", "meter": f" for {name}", "charge": f" for the charge {name}"}.get(what, f" for {scope}")
    percent = percent_of(cost, at)
    later = min((threshold for threshold in thresholds if threshold > at), default=None)
    coming = f"The next alert comes at {amount(later, currency)}. " if later is not None else ""
    return Alert(
        alert_id=message.alert_id,
        kind="spend",
        tenant=tenant,
        meter=name if what == "meter" else None,
        period=message.period,
        headline=f"{tenant}'s running cost{of} has reached {amount(at, currency)}",
        summary=f"{amount(cost, currency)} so far in {period}",
        rows=(
            ("Tenant", tenant),
            ("Cost of", {"total": "everything this month", "meter": name, "charge": f"charge {name}"}.get(what, scope)),
            ("So far", f"{amount(cost, currency)} ({percent_text(percent)} of the threshold)"),
            ("Threshold", amount(at, currency)),
            ("Period", period),
        ),
        explanation_title="What this is",
        explanation=(
            "The running cost is before tax: what the invoice would show if no more usage came. Nothing is blocked. "
            f"{coming}The next period, another threshold or a correction that takes the cost below re-arms this alert."
        ),
        happened=f"Reached at {clean(message.crossed_at)}",
        is_severe=False,
        gauge=Gauge(bar(percent), percent_text(percent)),
    )
