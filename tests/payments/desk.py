"""What tests do with a payment after it was charged: let time pass, fetch the provider's events, give them effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from core.clock import ManualClock
from core.errors import UnavailableError
from core.messages import InvoiceFinalized
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_events import EVENTS_KEPT, StripeWebhookReader
from payments.adapters.stripe_provider import StripeProvider
from payments.apply_webhook import apply_next_webhook
from payments.charge_invoice import charge_invoice
from payments.close_pending_payments import close_pending_payments
from payments.domain.dispute import Dispute
from payments.domain.history import PaymentChange
from payments.domain.payment import Payment
from payments.domain.refund import Refund
from payments.refund_payment import RefundRequest, refund_payment
from payments.sweep_provider_events import sweep_provider_events
from tests.payments.conftest import Books

READERS = {"stripe": StripeWebhookReader()}


@dataclass
class Desk:
    """Stripe's stand-in, the store and a clock of its own; nothing of earlier tests is due here."""

    books: Books
    store: PostgresPayments
    provider: StripeProvider
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime.now(UTC)))

    async def clear(self) -> None:
        """Let nothing that earlier tests left be due, waiting or swept."""
        async with self.store._pool.connection() as connection:
            await connection.execute("UPDATE payments SET next_check_at = NULL, refunds_unread = false")
            await connection.execute("UPDATE payments SET status = 'canceled' WHERE status = 'requires_action'")
            await connection.execute("UPDATE refunds SET next_check_at = NULL")
            await connection.execute("UPDATE webhook_inbox SET processed_at = now() WHERE processed_at IS NULL")
            await connection.execute("DELETE FROM provider_sweeps")

    async def charge(self, invoice: InvoiceFinalized) -> Payment | None:
        """Charge once; an unknown outcome is None."""
        providers = {"stripe": self.provider}
        try:
            return await charge_invoice(invoice, store=self.store, providers=providers, clock=self.clock)
        except UnavailableError:
            return None

    async def sweep(self) -> int:
        """Fetch the events of the last days, as if no webhook had come; returns how many were new."""
        self.clock.advance(timedelta(minutes=2))
        return await sweep_provider_events(
            source=self.provider, inbox=self.store, store=self.store, history=EVENTS_KEPT, clock=self.clock
        )

    async def apply(self) -> int:
        """Give every webhook in the inbox its effect; returns how many."""
        done = 0
        while await apply_next_webhook(store=self.store, readers=READERS, clock=self.clock) is not None:
            done += 1
        return done

    async def catch_up(self) -> None:
        """Fetch and apply."""
        await self.sweep()
        await self.apply()

    async def settled(self, amount: str = "125.40", method: str = "pm_card_visa") -> Payment:
        """Charge a new invoice and settle it by its webhook."""
        invoice = await self.books.add_invoice(await self.books.add_tenant(method), amount)
        payment = await self.charge(invoice)
        assert payment is not None
        await self.catch_up()
        return await self.payment(payment.payment_id)

    async def janitor(self, later: timedelta = timedelta(0)) -> int:
        """Look open outcomes up after some time."""
        self.clock.advance(later)
        return await close_pending_payments(store=self.store, providers={"stripe": self.provider}, clock=self.clock)

    async def refund(self, payment: Payment, request: RefundRequest) -> Refund:
        """Refund through Stripe."""
        providers = {"stripe": self.provider}
        return await refund_payment(request, store=self.store, providers=providers, clock=self.clock)

    async def payment(self, payment_id: str) -> Payment:
        """Return a payment as stored."""
        async with self.store.transaction() as unit:
            found = await unit.lock_payment(payment_id)
        assert found is not None
        return found

    async def refunds(self, payment: Payment) -> list[Refund]:
        """Return a payment's refunds."""
        async with self.store.transaction() as unit:
            return list(await unit.refunds_of(payment.payment_id))

    async def disputes(self, payment: Payment) -> list[Dispute]:
        """Return a payment's disputes."""
        async with self.store.transaction() as unit:
            return list(await unit.disputes_of(payment.payment_id))

    async def history(self, payment: Payment) -> list[PaymentChange]:
        """Return a payment's history."""
        async with self.store.transaction() as unit:
            return list(await unit.history_of(payment.payment_id))

    async def steps(self, payment: Payment) -> list[str]:
        """Return a payment's history as `subject before>after cause`."""
        return [
            f"{change.subject.value} {change.before}>{change.after} {change.cause.kind.value}"
            for change in await self.history(payment)
        ]

    async def told(self, payment: Payment) -> list[tuple[str, str, str]]:
        """Return the outbox rows of a payment as (topic, amount, status), in order."""
        async with self.store._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT topic, convert_from(payload, 'UTF8')::jsonb AS said FROM outbox"
                    " WHERE convert_from(payload, 'UTF8')::jsonb ->> 'payment_id' = %s ORDER BY outbox_id",
                    (payment.payment_id,),
                )
            ).fetchall()
        return [(row["topic"], row["said"]["amount"], row["said"].get("status", "")) for row in rows]
