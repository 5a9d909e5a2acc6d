"""What the seller sets for all invoices, read from the settings' files once at the start of a process."""

from __future__ import annotations

from invoicing.adapters.ecb_rates import load_exchange_rates
from invoicing.adapters.seller_file import load_seller
from invoicing.adapters.tax_service import HttpTaxService
from invoicing.adapters.tax_tables import load_tax_tables
from invoicing.terms import Terms
from runtime.settings import Settings


def load_terms(settings: Settings) -> Terms:
    """Return seller, due days, tax tables and exchange rates; raises `InvalidInputError` with every fault of a file."""
    token = settings.tax_service_token.get_secret_value() if settings.tax_service_token else None
    service = HttpTaxService(settings.tax_service_url, token) if settings.tax_service_url else None
    return Terms(
        seller=load_seller(settings),
        due_days=settings.invoice_due_days,
        tables=load_tax_tables(settings.tax_tables_dir),
        exchange=load_exchange_rates(settings.exchange_rates_file),
        tax_service=service,
        grace_hours=settings.invoice_grace_hours,
    )
