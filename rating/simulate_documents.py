"""What a simulation came to as a JSON document; amounts and quantities are decimal strings."""

from __future__ import annotations

from typing import Any

from rating.domain.price import plain
from rating.domain.price_comparison import Mover, OfCurrency, Totals, money, percent


def totals_document(totals: Totals, *, question: str, period: str) -> dict[str, Any]:
    """Return the totals; `question` says what was simulated."""
    return {
        "question": question,
        "period": period,
        "tenants": totals.tenants,
        "currencies": {
            currency: _of_currency(found, currency)
            for currency, found in sorted(totals.by_currency.items())
            if found.sums.periods
        },
        "unpriced_usage": [
            {
                "meter": meter_id,
                "values": values or None,
                "quantity": plain(found.quantity),
                "unit": found.unit,
                "tenant_periods": found.periods,
                "of_them_without_price_now": found.without_price_now,
            }
            for (meter_id, values), found in sorted(totals.unpriced.items())
        ],
        "not_compared": [
            {"reason": note, "tenant_periods": count, "example": totals.examples[note]}
            for note, count in sorted(totals.not_compared.items())
        ],
    }


def _of_currency(found: OfCurrency, currency: str) -> dict[str, Any]:
    sums = found.sums
    change = percent(sums.difference, sums.present)
    return {
        "tenant_periods": sums.periods,
        "billed": money(sums.billed, currency),
        "present": money(sums.present, currency),
        "new": money(sums.new, currency),
        "difference": money(sums.difference, currency),
        "percent": None if change is None else f"{change:f}",
        "pay_more": found.more,
        "pay_less": found.less,
        "unchanged": found.unchanged,
        "charges": [
            {
                "charge": charge_id,
                "present": money(present, currency),
                "new": money(new, currency),
                "difference": money(new - present, currency),
            }
            for charge_id, (present, new) in sorted(found.charges.items())
        ],
        "top_more": [_mover(mover) for mover in found.most],
        "top_less": [_mover(mover) for mover in found.least],
    }


def _mover(mover: Mover) -> dict[str, Any]:
    change = percent(mover.difference, mover.present)
    return {
        "tenant_id": mover.tenant_id,
        "present": money(mover.present, mover.currency),
        "new": money(mover.new, mover.currency),
        "difference": money(mover.difference, mover.currency),
        "percent": None if change is None else f"{change:f}",
    }
