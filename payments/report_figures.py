"""Tells Prometheus what waits at the payment desk. Each replica reports the same figures: a rule takes the highest."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Gauge

from payments.adapters.postgres_figures import DeskFigures

_PAYMENTS = Gauge("meterbook_payments_open", "Payments without an end", ["provider", "status"])
_UNKNOWN = Gauge(
    "meterbook_payment_outcomes_unknown", "Payments and refunds without an answer for ten minutes", ["provider"]
)
_OWED = Gauge("meterbook_refunds_owed", "Credit notes whose refund failed and was not acted on")
_DISPUTES = Gauge("meterbook_disputes_open", "Disputes without an end")
_ACCOUNTS = Gauge("meterbook_dunning_accounts", "Accounts that are not current, by standing", ["stage"])
_RECEIPTS = Gauge("meterbook_bank_entries_open", "Bank entries that nobody has said anything of", ["currency"])
_AMOUNT = Gauge("meterbook_bank_amount_open", "What is left of them, in the currency's major unit", ["currency"])


def report_figures(figures: DeskFigures) -> None:
    """Set the gauges; what waits no more is gone from them."""
    _set(_PAYMENTS, {(*key,): float(count) for key, count in figures.open_payments.items()})
    _set(_UNKNOWN, {(provider,): float(count) for provider, count in figures.unknown_outcomes.items()})
    _OWED.set(figures.owed_refunds)
    _DISPUTES.set(figures.open_disputes)
    _set(_ACCOUNTS, {(stage,): float(count) for stage, count in figures.accounts.items()})
    _set(_RECEIPTS, {(currency,): float(count) for currency, (count, _) in figures.receipts.items()})
    _set(_AMOUNT, {(currency,): amount for currency, (_, amount) in figures.receipts.items()})


def _set(gauge: Gauge, figures: Mapping[tuple[str, ...], float]) -> None:
    gauge.clear()
    for labels, figure in figures.items():
        gauge.labels(*labels).set(figure)
