"""What the seller sets for all documents."""

from __future__ import annotations

from dataclasses import dataclass, field

from invoicing.determine_taxes import TaxRules
from invoicing.domain.exchange import NO_RATES, ExchangeRates
from invoicing.domain.seller import Seller
from invoicing.domain.tax.tables import TaxTables
from invoicing.tax_ports import TaxService


@dataclass(frozen=True, slots=True)
class Terms:
    """Who sells, days until due, by what tables tax is charged, and how many hours an invoice stays a draft."""

    seller: Seller
    due_days: int
    tables: TaxTables = field(default_factory=TaxTables)
    exchange: ExchangeRates = NO_RATES
    tax_service: TaxService | None = None
    grace_hours: int = 0

    @property
    def tax_rules(self) -> TaxRules:
        """How tax is charged."""
        return TaxRules(self.seller.tax, self.tables, self.exchange, self.tax_service)
