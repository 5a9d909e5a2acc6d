"""The running cost of a tenant's billing period as it is read in one go: what each charge of a plan costs so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from core.money import round_to_minor
from core.period import format_instant
from rating.domain.price import plain


class CostLine(msgspec.Struct, frozen=True):
    """What one charge of a plan version costs so far; quantity and amount are decimal strings."""

    plan_id: str
    holding: str
    charge_id: str
    meter_id: str
    quantity: str
    amount: str
    currency: str


class CostPart(msgspec.Struct, frozen=True):
    """What one subscription costs so far, as of the rating of `version` (milliseconds since 1970 UTC)."""

    version: int
    lines: tuple[CostLine, ...]


@dataclass(frozen=True, slots=True)
class CostSoFar:
    """A tenant's running cost of a billing period, by subscription."""

    tenant_id: str
    period: str
    parts: dict[str, CostPart]

    def totals(self) -> dict[str, Decimal]:
        """Return the sum by currency."""
        sums: dict[str, Decimal] = {}
        for part in self.parts.values():
            for line in part.lines:
                sums[line.currency] = sums.get(line.currency, Decimal(0)) + Decimal(line.amount)
        return sums

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON: totals by currency, and every charge; amounts and quantities are strings."""
        newest = max((part.version for part in self.parts.values()), default=None)
        return {
            "tenant_id": self.tenant_id,
            "period": self.period,
            "as_of": None if newest is None else format_instant(_instant(newest)),
            "totals": {currency: f"{amount:f}" for currency, amount in sorted(self.totals().items())},
            "charges": [
                {"subscription_id": subscription_id, **msgspec.structs.asdict(line)}
                for subscription_id, part in sorted(self.parts.items())
                for line in part.lines
            ],
        }


def cost_line(
    plan_id: str, holding: str, charge_id: str, meter_id: str, quantity: Decimal, amount: Decimal, currency: str
) -> CostLine:
    """Return a line with its figures as texts."""
    rounded = round_to_minor(amount, currency)
    return CostLine(plan_id, holding, charge_id, meter_id, plain(quantity), f"{rounded:f}", currency)


def _instant(version: int) -> datetime:
    return datetime.fromtimestamp(version / 1_000, UTC)
