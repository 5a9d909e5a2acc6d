"""What a simulation came to as a JSON document; amounts and quantities are decimal strings."""

from __future__ import annotations

from typing import Any

from rating.domain.price import plain
from rating.domain.price_comparison import Mover, OfCurrency, Totals, percent


def totals_document(totals: Totals, *, question: str, period: str) -> dict[str, Any]:
    """Return the totals; `question` says what was simulated."""
    return {
        "question": question,
        "period": period,
        "tenants": totals.tenants,
        "currencies": {
            currency: _of_currency(found)
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


def _of_currency(found: OfCurrency) -> dict[str, Any]:
    sums = found.sums
    change = percent(sums.difference, sums.present)
    return {
        "tenant_periods": sums.periods,
        "billed": f"{sums.billed:f}",
        "present": f"{sums.present:f}",
        "new": f"{sums.new:f}",
        "difference": f"{sums.difference:f}",
        "percent": None if change is None else f"{change:f}",
        "pay_more": found.more,
        "pay_less": found.less,
        "unchanged": found.unchanged,
        "charges": [
            {"charge": charge_id, "present": f"{present:f}", "new": f"{new:f}", "difference": f"{new - present:f}"}
            for charge_id, (present, new) in sorted(found.charges.items())
        ],
        "top_more": [_mover(mover) for mover in found.most],
        "top_less": [_mover(mover) for mover in found.least],
    }


def _mover(mover: Mover) -> dict[str, Any]:
    change = percent(mover.difference, mover.present)
    return {
        "tenant_id": mover.tenant_id,
        "present": f"{mover.present:f}",
        "new": f"{mover.new:f}",
        "difference": f"{mover.difference:f}",
        "percent": None if change is None else f"{change:f}",
    }
