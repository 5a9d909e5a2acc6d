"""Dated exchange rates and the one that is frozen on an invoice. Pure: where rates come from is an adapter's business.

Central banks publish on business days. The rate of a day is the one last published before or on it, and not older than
a week: an older one means that the file was not kept up, and nothing is guessed from it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from core.errors import Fault
from core.money import round_to_minor

# Easter has the longest stretch without a publication: Friday to Monday, with the weekend before it at most five days.
_AGE_MAX = timedelta(days=7)
# A cross rate is a quotient; more digits than any published rate has, so that the rounding is of no account.
_CROSS_DIGITS = Decimal(1).scaleb(-10)


@dataclass(frozen=True, slots=True)
class FrozenRate:
    """The rate fixed on an invoice: one unit of the invoice's currency is `rate` of `currency`.

    `published_on` is the day it was published, `source` by whom; `tax` is the invoice's tax in `currency`.
    """

    currency: str
    rate: Decimal
    published_on: date
    source: str
    tax: Decimal

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON for the snapshot."""
        return {
            "currency": self.currency,
            "rate": _plain(self.rate),
            "published_on": self.published_on.isoformat(),
            "source": self.source,
            "tax": f"{self.tax:f}",
        }


@dataclass(frozen=True, slots=True)
class ExchangeRates:
    """Rates of a `base` currency by day: one unit of the base is so much of each other currency. Days in order."""

    base: str
    source: str
    days: tuple[date, ...]
    rates: Mapping[date, Mapping[str, Decimal]]

    def rate(self, source: str, target: str, on: date) -> tuple[Decimal, date] | Fault:
        """Return how much of `target` one unit of `source` is on a day, and when that was published.

        A pair without the base is crossed: both rates are of the same day. Faults: `unknown_exchange_rate`.
        """
        if source == target:
            return Decimal(1), on
        last = bisect_right(self.days, on)
        for day in reversed(self.days[:last]):
            if on - day > _AGE_MAX:
                break
            of_day = self.rates[day]
            known_source = Decimal(1) if source == self.base else of_day.get(source)
            known_target = Decimal(1) if target == self.base else of_day.get(target)
            if known_source is not None and known_target is not None:
                if source == self.base:
                    return known_target, day
                return (known_target / known_source).quantize(_CROSS_DIGITS), day
        reason = f"no rate of {source} in {target} was published in the week up to {on.isoformat()}"
        return Fault("unknown_exchange_rate", reason, "currency")

    def freeze(self, tax: Decimal, source: str, target: str, on: date) -> FrozenRate | Fault:
        """Return the rate of a day with a tax in the target currency, rounded half up once."""
        found = self.rate(source, target, on)
        if isinstance(found, Fault):
            return found
        rate, day = found
        return FrozenRate(target, rate, day, self.source, round_to_minor(tax * rate, target))


NO_RATES = ExchangeRates("", "", (), {})


def _plain(rate: Decimal) -> str:
    text = f"{rate:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
