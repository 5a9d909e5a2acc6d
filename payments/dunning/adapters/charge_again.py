"""Charges again through `payments.charge_invoice`, for what is open now."""

from __future__ import annotations

from collections.abc import Mapping

from core.clock import Clock
from core.messages import InvoiceFinalized
from core.period import format_instant
from payments.charge_invoice import charge_invoice
from payments.domain.payment import Payment
from payments.dunning.domain.case import UnpaidInvoice
from payments.ports import PaymentProvider, PaymentStore


class ChargeAgainAtProviders:
    """Implements `payments.dunning.ports.ChargeAgain`."""

    def __init__(self, store: PaymentStore, providers: Mapping[str, PaymentProvider], clock: Clock) -> None:
        self._store, self._providers, self._clock = store, providers, clock

    async def __call__(self, invoice: UnpaidInvoice, retry_of: str) -> Payment | None:
        """Return the attempt that follows `retry_of`; what came in parts meanwhile is not asked for again."""
        asked = InvoiceFinalized(
            invoice_id=invoice.invoice_id,
            number=invoice.number,
            tenant_id=invoice.tenant_id,
            currency=invoice.currency,
            amount_due=f"{invoice.amount_open:f}",
            period_start="",
            period_end="",
            issued_at=format_instant(invoice.issued_at),
            due_at=format_instant(invoice.due_at),
        )
        return await charge_invoice(
            asked, store=self._store, providers=self._providers, clock=self._clock, retry_of=retry_of
        )
