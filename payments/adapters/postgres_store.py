"""Payments in PostgreSQL. Owns the SQL of payments, payment methods and the webhook inbox, and their transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from psycopg import DataError, OperationalError
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg_pool import PoolTimeout

from core.errors import ConflictError, Fault, InvalidInputError, UnavailableError
from core.messages import PaymentSettled, decode_message
from core.money import Money
from core.period import format_instant
from core.topics import PAYMENT_SETTLED
from payments.adapters.postgres_refunds import RefundRows
from payments.adapters.postgres_rows import PAYMENT_COLUMNS, read_payment, shared_values, storable
from payments.adapters.postgres_upkeep import UpkeepRows
from payments.domain.announcement import Announcement
from payments.domain.payment import Payment
from payments.domain.price_list import PlanDocument
from payments.domain.schedule import FIRST_CHECK_AFTER
from payments.ports import Payer, PaymentMethod, StoredWebhook
from runtime.outbox import append_event
from runtime.postgres import Pool
from runtime.webhooks_out.queue import enqueue

# The provider gives up after a few seconds and sends again.
_INBOX_WAIT_SECONDS = 1.5
_LATEST = f"SELECT {PAYMENT_COLUMNS} FROM payments WHERE invoice_id = %s ORDER BY attempt DESC LIMIT 1 FOR UPDATE"  # noqa: S608
_BY_ID = f"SELECT {PAYMENT_COLUMNS} FROM payments WHERE payment_id = %s FOR UPDATE"  # noqa: S608
_BY_REFERENCE = f"SELECT {PAYMENT_COLUMNS} FROM payments WHERE provider = %s AND provider_reference = %s FOR UPDATE"  # noqa: S608
# SHARE waits for whoever voids or credits the invoice, and makes them wait: they then see the payment that is opened.
_LOCK_INVOICE = """
SELECT status, currency, amount_due - amount_paid AS amount_open FROM invoices WHERE invoice_id = %s FOR SHARE
"""
_NOT_SETTLED_YET = """
SELECT coalesce(sum(amount), 0) AS amount FROM payments WHERE invoice_id = %s AND status = 'succeeded'
AND NOT EXISTS (SELECT FROM settlements WHERE settlements.payment_id = payments.payment_id)
"""
# Without a conflict target: the partial index that allows one live payment per invoice counts as well.
_INSERT = """
INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status, created_at,
                      updated_at, next_check_at)
VALUES (%(payment_id)s, %(invoice_id)s, %(tenant_id)s, %(attempt)s, %(provider)s, %(amount)s, %(currency)s, %(status)s,
        %(created_at)s, %(now)s, %(next_check_at)s)
ON CONFLICT DO NOTHING
"""
_UPDATE = """
UPDATE payments
SET status = %(status)s, provider_reference = %(provider_reference)s, failure_code = %(failure_code)s,
    failure_reason = %(failure_reason)s, settled_at = %(settled_at)s, updated_at = %(now)s,
    next_check_at = CASE WHEN %(is_open)s OR refunds_unread THEN next_check_at END
WHERE payment_id = %(payment_id)s
"""
_METHOD = """
SELECT tenant_id, provider, customer_reference, method_reference FROM payment_methods
WHERE tenant_id = %s AND customer_reference IS NOT NULL ORDER BY created_at DESC, provider LIMIT 1
"""
_FORGET_METHOD = "DELETE FROM payment_methods WHERE tenant_id = %s AND provider = %s AND method_reference = %s"
_NEXT_WEBHOOK = """
SELECT provider, event_id, event_type, body FROM webhook_inbox WHERE processed_at IS NULL
ORDER BY received_at, event_id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_CLOSE_WEBHOOK = "UPDATE webhook_inbox SET processed_at = %s, refusal = %s WHERE provider = %s AND event_id = %s"
_ADD_WEBHOOK = """
INSERT INTO webhook_inbox (provider, event_id, event_type, body, received_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (provider, event_id) DO NOTHING
"""
_LIST = f"""
SELECT {PAYMENT_COLUMNS} FROM payments
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND (%(invoice)s::text IS NULL OR invoice_id = %(invoice)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(after)s::text IS NULL OR (created_at, payment_id) < (
      SELECT p.created_at, p.payment_id FROM payments p WHERE p.payment_id = %(after)s))
ORDER BY created_at DESC, payment_id DESC LIMIT %(limit)s
"""  # noqa: S608
_FIND = f"SELECT {PAYMENT_COLUMNS} FROM payments WHERE payment_id = %s"  # noqa: S608
_OPEN_DISPUTES = """
SELECT dispute_id, payment_id, invoice_id, tenant_id, provider, provider_reference, amount, currency, reason, status,
       evidence_due_at
FROM disputes WHERE status IN ('inquiry', 'opened') ORDER BY evidence_due_at NULLS LAST, dispute_id
"""
_SWEPT = """
INSERT INTO provider_sweeps (provider, swept_until) VALUES (%s, %s)
ON CONFLICT (provider) DO UPDATE SET swept_until = greatest(provider_sweeps.swept_until, excluded.swept_until)
"""


class PostgresPaymentUnit(RefundRows, UpkeepRows):
    """One transaction; implements `payments.ports.PaymentUnit`."""

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a part that an exception undoes alone; what PostgreSQL cannot hold becomes `InvalidInputError`."""
        try:
            async with self._connection.transaction():
                yield
        except (DataError, UnicodeEncodeError) as error:
            raise InvalidInputError([Fault("unstorable", str(error)[:200])]) from error

    async def latest_payment(self, invoice_id: str) -> Payment | None:
        """Lock and return the invoice's newest attempt."""
        return _payment(await self._one(_LATEST, (invoice_id,)))

    async def lock_payment(self, payment_id: str) -> Payment | None:
        """Lock and return a payment."""
        return _payment(await self._one(_BY_ID, (payment_id,)))

    async def lock_payment_of(self, provider: str, reference: str) -> Payment | None:
        """Lock and return the payment with this reference at the provider."""
        return _payment(await self._one(_BY_REFERENCE, (provider, reference)))

    async def lock_open_amount(self, invoice_id: str) -> Money | None:
        """Return what may be collected of an invoice now, holding its row; None if there is no such invoice."""
        invoice = await self._one(_LOCK_INVOICE, (invoice_id,))
        if invoice is None:
            return None
        if invoice["status"] not in ("finalized", "overdue"):
            return Money(Decimal(0), invoice["currency"])
        coming = await self._one(_NOT_SETTLED_YET, (invoice_id,))
        left = invoice["amount_open"] - (coming["amount"] if coming else 0)
        return Money(max(left, Decimal(0)), invoice["currency"])

    async def insert_payment(self, payment: Payment, now: datetime) -> bool:
        """Write a new payment; False if it, or another live or successful one of the invoice, is there."""
        try:
            async with self._connection.transaction():
                cursor = await self._connection.execute(_INSERT, _parameters(payment, now))
        except ForeignKeyViolation:
            raise InvalidInputError(
                [Fault("unknown_invoice", f"no invoice {payment.invoice_id!r} of tenant {payment.tenant_id!r}")]
            ) from None
        return cursor.rowcount == 1

    async def update_payment(self, payment: Payment, now: datetime) -> None:
        """Write a changed payment; `ConflictError` if another one of its invoice is live or has succeeded."""
        try:
            async with self._connection.transaction():
                await self._connection.execute(_UPDATE, _parameters(payment, now))
        except UniqueViolation as error:
            raise ConflictError(f"another payment stands in the way: {error.diag.constraint_name}") from None

    async def announce(self, announcement: Announcement, now: datetime) -> None:
        """Put a message into the outbox."""
        await append_event(
            self._connection,
            announcement.topic,
            key=announcement.key,
            event_id=announcement.event_id,
            payload=announcement.payload,
            now=now,
        )
        if announcement.topic is PAYMENT_SETTLED:
            await self._tell_receivers(decode_message(announcement.payload, PaymentSettled), announcement.event_id, now)

    async def _tell_receivers(self, settled: PaymentSettled, event_id: str, now: datetime) -> None:
        """Let the outgoing webhook `payment.succeeded` go with the same commit."""
        await enqueue(
            self._connection,
            message_id=event_id,
            event_type="payment.succeeded",
            tenant_id=settled.tenant_id,
            data=msgspec.structs.asdict(settled),
            occurred_at=datetime.fromisoformat(settled.settled_at),
            now=now,
        )

    async def payment_method(self, tenant_id: str) -> PaymentMethod | None:
        """Return how the tenant pays; the newest if there are several."""
        row = await self._one(_METHOD, (tenant_id,))
        return PaymentMethod(**row) if row else None

    async def next_webhook(self) -> StoredWebhook | None:
        """Lock and return the oldest open webhook that nobody else works on."""
        row = await self._one(_NEXT_WEBHOOK, ())
        return StoredWebhook(**{**row, "body": bytes(row["body"])}) if row else None

    async def close_webhook(self, webhook: StoredWebhook, now: datetime, refusal: str | None) -> None:
        """Mark a webhook as processed, with the reason if it was refused."""
        await self._connection.execute(_CLOSE_WEBHOOK, (now, refusal, webhook.provider, webhook.event_id))


class PostgresPayments:
    """Implements `PaymentStore`, `WebhookInbox`, `PayerStore` and `SweepStore` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresPaymentUnit]:
        """Open a transaction; an exception rolls it back."""
        async with self._pool.connection() as connection, connection.transaction():
            yield PostgresPaymentUnit(connection)

    async def add(self, webhook: StoredWebhook, received_at: datetime) -> bool:
        """Keep a webhook; False if the same event was kept before. `UnavailableError` within seconds of an outage."""
        values = (webhook.provider, webhook.event_id, webhook.event_type, webhook.body, received_at)
        try:
            async with self._pool.connection(timeout=_INBOX_WAIT_SECONDS) as connection:
                return (await connection.execute(_ADD_WEBHOOK, values)).rowcount == 1
        except (OperationalError, PoolTimeout) as error:
            raise UnavailableError("the webhook inbox cannot be written now") from error

    async def find_payer(self, tenant_id: str) -> Payer | None:
        """Return the tenant."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT tenant_id, name, email, language, time_zone FROM tenants WHERE tenant_id = %s",
                    (tenant_id,),
                )
            ).fetchone()
        return Payer(**row) if row else None

    async def find_customer(self, tenant_id: str, provider: str) -> str | None:
        """Return the tenant's customer reference at the provider."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT customer_reference FROM payment_methods WHERE tenant_id = %s AND provider = %s",
                    (tenant_id, provider),
                )
            ).fetchone()
        return row["customer_reference"] if row else None

    async def save_method(self, method: PaymentMethod, now: datetime) -> None:
        """Store the references, replacing earlier ones of the same provider."""
        async with self._pool.connection() as connection:
            await UpkeepRows(connection).save_payer_method(method, now)

    async def forget_method(self, tenant_id: str, provider: str, method_reference: str) -> None:
        """Forget the references, unless another method has taken this one's place."""
        async with self._pool.connection() as connection:
            await connection.execute(_FORGET_METHOD, (tenant_id, provider, method_reference))

    async def list_payments(
        self, tenant: str | None, invoice: str | None, status: str | None, limit: int, starting_after: str | None
    ) -> list[dict[str, Any]]:
        """Return payments, newest first, as rows."""
        values = {
            "tenant": tenant, "invoice": invoice, "status": status, "limit": limit, "after": starting_after
        }  # fmt: skip
        async with self._pool.connection() as connection:
            return await (await connection.execute(_LIST.encode(), values)).fetchall()

    async def find_payment(self, payment_id: str) -> dict[str, Any] | None:
        """Return a payment's row."""
        async with self._pool.connection() as connection:
            return await (await connection.execute(_FIND.encode(), (payment_id,))).fetchone()

    async def open_disputes(self) -> list[dict[str, Any]]:
        """Return disputes that wait for evidence or a decision, the nearest deadline first, as texts."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_OPEN_DISPUTES)).fetchall()
        return [
            {**row, "amount": f"{row['amount']:f}", "evidence_due_at": due and format_instant(due)}
            for row in rows
            for due in (row["evidence_due_at"],)
        ]

    async def plan_documents(self) -> list[PlanDocument]:
        """Return every stored plan version with its document."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT plan_id, version, document FROM plan_versions ORDER BY plan_id, version"
                )
            ).fetchall()
        return [PlanDocument(row["plan_id"], row["version"], row["document"]) for row in rows]

    async def swept_until(self, provider: str) -> datetime | None:
        """Return the instant before which every event is in the inbox; None before the first sweep."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute("SELECT swept_until FROM provider_sweeps WHERE provider = %s", (provider,))
            ).fetchone()
        return row["swept_until"] if row else None

    async def set_swept_until(self, provider: str, until: datetime) -> None:
        """Remember it; it never goes back."""
        async with self._pool.connection() as connection:
            await connection.execute(_SWEPT, (provider, until))


def _parameters(payment: Payment, now: datetime) -> dict[str, Any]:
    return {
        **shared_values(payment),
        "attempt": payment.attempt,
        "failure_code": payment.failure_code,
        "failure_reason": storable(payment.failure_reason),
        "created_at": payment.created_at,
        "settled_at": payment.settled_at,
        "is_open": payment.is_open,
        "next_check_at": now + FIRST_CHECK_AFTER if payment.is_open else None,
        "now": now,
    }


def _payment(row: dict[str, Any] | None) -> Payment | None:
    return read_payment(row) if row else None
