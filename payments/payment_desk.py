"""What the HTTP API shows of payments and asks of them. Refunds are written down here and made by `payment-upkeep`,
which alone holds the provider's key.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from core.clock import Clock
from core.errors import NotFoundError
from core.period import format_instant
from payments.adapters.postgres_note_refunds import PostgresNoteRefunds
from payments.adapters.postgres_store import PostgresPayments
from payments.domain.dispute import Dispute
from payments.domain.history import PaymentChange
from payments.domain.note_refund import NoteRefund
from payments.domain.refund import Refund
from payments.refund_credit_note import credit_after_all, refund_credit_note
from payments.refund_payment import RefundRequest, open_refund
from runtime.postgres import Connection, Pool

# Whose payments `payment-upkeep` can refund.
REFUNDABLE = ("paypal", "stripe")


class PaymentDesk:
    """Implements `api.ports.PaymentDesk`."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool, self._store, self._clock = pool, PostgresPayments(pool), clock

    async def list_payments(
        self, *, tenant: str | None, invoice: str | None, status: str | None, limit: int, starting_after: str | None
    ) -> list[dict[str, Any]]:
        """Return payments, newest first."""
        rows = await self._store.list_payments(tenant, invoice, status, limit, starting_after)
        return [_payment_fields(row) for row in rows]

    async def find_payment(self, payment_id: str) -> dict[str, Any]:
        """Return a payment with its refunds, disputes and history; raises `NotFoundError`."""
        row = await self._store.find_payment(payment_id)
        if row is None:
            raise NotFoundError(f"no payment {payment_id!r}")
        async with self._store.transaction() as unit:
            refunds = await unit.refunds_of(payment_id)
            disputes = await unit.disputes_of(payment_id)
            history = await unit.history_of(payment_id)
        return {
            **_payment_fields(row),
            "refunds": [refund_fields(refund) for refund in refunds],
            "disputes": [_dispute_fields(dispute) for dispute in disputes],
            "history": [change_fields(change) for change in history],
        }

    async def ask_refund(
        self, payment_id: str, *, amount: Decimal | None, reason: str, key: str, requested_by: str
    ) -> dict[str, Any]:
        """Write a refund down to be made within seconds; the same key is the same refund."""
        request = RefundRequest(payment_id, key, amount, reason, requested_by)
        async with self._store.transaction() as unit:
            refund, _, is_new = await open_refund(unit, request, refundable=REFUNDABLE, clock=self._clock)
            if is_new:
                await unit.schedule_refund_check(refund.refund_id, 0, self._clock.now())
        return refund_fields(refund)

    async def find_note_refund(self, reference: str) -> dict[str, Any]:
        """Return how the refund of a credit note stands; raises `NotFoundError` where its value is a credit."""
        async with self._pool.connection() as connection:
            found = await PostgresNoteRefunds(connection).find_note(reference)
        if found is None or not found.amount:
            raise NotFoundError(f"no credit note {reference[:80]!r} is refunded")
        return note_refund_fields(found)

    async def refund_note(self, reference: str, *, requested_by: str) -> dict[str, Any]:
        """Refund a credit note whose credit is unused, or try again what failed."""
        async with self._pool.connection() as connection, connection.transaction():
            desk = NoteRefundDesk(self._clock, is_again=True)
            return await desk.refund_note(connection, reference, requested_by=requested_by)

    async def credit_note_after_all(self, reference: str) -> dict[str, Any]:
        """Give as a credit what could not be refunded of a credit note."""
        async with self._pool.connection() as connection, connection.transaction():
            done = await credit_after_all(reference, unit=PostgresNoteRefunds(connection), clock=self._clock)
        return note_refund_fields(done)

    async def list_owed_refunds(self) -> list[dict[str, Any]]:
        """Return the credit notes whose refund failed and was not tried again, the oldest first."""
        async with self._pool.connection() as connection:
            return [note_refund_fields(one) for one in await PostgresNoteRefunds(connection).owed()]

    async def list_disputes(self) -> list[dict[str, Any]]:
        """Return disputes that wait for evidence or a decision, the nearest deadline first."""
        return await self._store.open_disputes()


class NoteRefundDesk:
    """Implements `invoicing.invoice_desk.NoteRefunds`; with `is_again` what failed is tried again."""

    def __init__(self, clock: Clock, *, is_again: bool = False) -> None:
        self._clock, self._is_again = clock, is_again

    async def refund_note(self, connection: Connection, credit_note_id: str, *, requested_by: str) -> dict[str, Any]:
        """Write the refund of a credit note down in the caller's transaction."""
        unit = PostgresNoteRefunds(connection)
        done = await refund_credit_note(
            credit_note_id,
            requested_by=requested_by,
            unit=unit,
            refundable=REFUNDABLE,
            clock=self._clock,
            is_again=self._is_again,
        )
        return note_refund_fields(done)


def note_refund_fields(refund: NoteRefund) -> dict[str, Any]:
    """Return how a credit note's refund stands, as JSON shows it."""
    return {
        "credit_note_id": refund.credit_note_id,
        "number": refund.number,
        "tenant_id": refund.tenant_id,
        "status": refund.status.value,
        "amount": f"{refund.amount:f}",
        "currency": refund.currency,
        "owed": f"{refund.owed:f}",
        "credited": f"{refund.credited:f}",
        "refunds": [refund_fields(part) for part in refund.refunds],
    }


def refund_fields(refund: Refund) -> dict[str, Any]:
    """Return a refund as JSON shows it."""
    return {
        "refund_id": refund.refund_id,
        "payment_id": refund.payment_id,
        "invoice_id": refund.invoice_id,
        "status": refund.status.value,
        "amount": f"{refund.amount.amount:f}",
        "currency": refund.amount.currency,
        "reason": refund.reason,
        "requested_by": refund.requested_by,
        "failure_code": refund.failure_code,
        "created_at": format_instant(refund.created_at),
    }


def change_fields(change: PaymentChange) -> dict[str, Any]:
    """Return an entry of a payment's history as JSON shows it."""
    return {
        "at": format_instant(change.changed_at),
        "subject": change.subject.value,
        "subject_id": change.subject_id,
        "before": change.before,
        "after": change.after,
        "cause": change.cause.kind.value,
        "cause_reference": change.cause.reference,
        "code": change.code,
        "reason": change.reason,
    }


def _payment_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    settled = row["settled_at"]
    return {
        "payment_id": row["payment_id"],
        "invoice_id": row["invoice_id"],
        "tenant_id": row["tenant_id"],
        "attempt": row["attempt"],
        "provider": row["provider"],
        "status": row["status"],
        "amount": f"{row['amount']:f}",
        "currency": row["currency"],
        "failure_code": row["failure_code"],
        "failure_reason": row["failure_reason"],
        "created_at": format_instant(row["created_at"]),
        "settled_at": settled and format_instant(settled),
    }


def _dispute_fields(dispute: Dispute) -> dict[str, Any]:
    due = dispute.evidence_due_at
    return {
        "dispute_id": dispute.dispute_id,
        "status": dispute.status.value,
        "amount": f"{dispute.amount.amount:f}",
        "currency": dispute.amount.currency,
        "reason": dispute.reason,
        "opened_at": format_instant(dispute.opened_at),
        "evidence_due_at": due and format_instant(due),
    }
