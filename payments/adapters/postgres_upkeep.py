"""History, look-ups, payers' actions and sweeps in PostgreSQL. Owns the SQL of what happens to payments over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg.errors import ForeignKeyViolation

from core.errors import Fault, InvalidInputError
from payments.adapters.postgres_rows import PAYMENT_COLUMNS, Rows, read_payment, storable
from payments.domain.history import Cause, CauseKind, PaymentChange, Subject
from payments.domain.payment import Payment
from payments.ports import DuePayment, PayerAction, PaymentMethod

_NOTE = """
INSERT INTO payment_changes (subject, subject_id, payment_id, tenant_id, status_before, status_after, cause,
                             cause_reference, code, reason, changed_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_HISTORY = """
SELECT subject, subject_id, payment_id, tenant_id, status_before, status_after, cause, cause_reference, code, reason,
       changed_at
FROM payment_changes WHERE payment_id = %s ORDER BY change_id
"""
_SCHEDULE = "UPDATE payments SET checks = %s, next_check_at = %s, refunds_unread = false WHERE payment_id = %s"
_END_CHECKS = "UPDATE payments SET checks = %s, next_check_at = NULL WHERE payment_id = %s AND NOT refunds_unread"
_READ_REFUNDS = "UPDATE payments SET refunds_unread = true, next_check_at = %s WHERE payment_id = %s"
_DUE = f"""
SELECT {PAYMENT_COLUMNS}, checks FROM payments WHERE next_check_at <= %s ORDER BY next_check_at, payment_id LIMIT %s
"""  # noqa: S608
_SAVE_ACTION = """
INSERT INTO payer_actions (payment_id, url, expires_at, created_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (payment_id) DO UPDATE SET url = excluded.url
"""
_ACTION = "SELECT payment_id, url, expires_at FROM payer_actions WHERE payment_id = %s"
_WAITING = f"""
SELECT {PAYMENT_COLUMNS} FROM payments
WHERE status = 'requires_action' AND provider = %s
  AND NOT EXISTS (SELECT FROM payer_actions a WHERE a.payment_id = payments.payment_id AND a.told_at IS NOT NULL)
ORDER BY created_at, payment_id LIMIT %s
"""  # noqa: S608
# Both tables have a `created_at`.
_OF_PAYMENT = PAYMENT_COLUMNS.replace("created_at", "payments.created_at")
_TO_REMIND = f"""
SELECT {PAYMENT_COLUMNS} FROM payments
WHERE status = 'requires_action' AND provider = %(provider)s
  AND EXISTS (SELECT FROM payer_actions a WHERE a.payment_id = payments.payment_id AND a.reminded_at IS NULL
              AND a.told_at + (a.expires_at - a.told_at) / 2 <= %(now)s AND a.expires_at > %(now)s)
ORDER BY created_at, payment_id LIMIT %(limit)s
"""  # noqa: S608
_EXPIRED = f"""
SELECT {_OF_PAYMENT} FROM payments LEFT JOIN payer_actions a USING (payment_id)
WHERE status = 'requires_action' AND provider = %s
  AND (a.expires_at <= %s OR a.url IS NULL AND payments.created_at < %s)
ORDER BY payments.created_at, payment_id LIMIT %s
"""  # noqa: S608
_METHOD_AT = """
SELECT tenant_id, provider, customer_reference, method_reference FROM payment_methods
WHERE tenant_id = %s AND provider = %s AND customer_reference IS NOT NULL
"""
_SAVE_METHOD = """
INSERT INTO payment_methods (tenant_id, provider, customer_reference, method_reference, created_at)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, provider) DO UPDATE
SET customer_reference = excluded.customer_reference, method_reference = excluded.method_reference,
    created_at = excluded.created_at
WHERE payment_methods.created_at <= excluded.created_at
"""
_REMOVE_METHOD = """
DELETE FROM payment_methods
WHERE provider = %(provider)s AND method_reference = %(method)s
  AND (%(customer)s::text IS NULL OR customer_reference = %(customer)s)
"""


class UpkeepRows(Rows):
    """The part of `payments.ports.PaymentUnit` that is about time: history, look-ups, payers' actions."""

    async def note_change(self, change: PaymentChange) -> None:
        """Add an entry to a payment's history."""
        await self._connection.execute(
            _NOTE,
            (
                change.subject.value, change.subject_id, change.payment_id, change.tenant_id, change.before,
                change.after, change.cause.kind.value, storable(change.cause.reference), change.code,
                storable(change.reason), change.changed_at,
            ),
        )  # fmt: skip

    async def history_of(self, payment_id: str) -> Sequence[PaymentChange]:
        """Return everything that happened to a payment, its refunds and disputes, oldest first."""
        return [
            PaymentChange(
                subject=Subject(row["subject"]),
                subject_id=row["subject_id"],
                payment_id=row["payment_id"],
                tenant_id=row["tenant_id"],
                before=row["status_before"],
                after=row["status_after"],
                cause=Cause(CauseKind(row["cause"]), row["cause_reference"]),
                changed_at=row["changed_at"],
                code=row["code"],
                reason=row["reason"],
            )
            for row in await self._all(_HISTORY, (payment_id,))
        ]

    async def schedule_check(self, payment_id: str, checks: int, at: datetime | None) -> None:
        """Say when a payment's outcome is to be looked up next; None ends it unless refunds are unread."""
        if at is None:
            await self._connection.execute(_END_CHECKS, (checks, payment_id))
        else:
            await self._connection.execute(_SCHEDULE, (checks, at, payment_id))

    async def ask_for_refunds(self, payment_id: str, now: datetime) -> None:
        """Let the next look-up read the payment's refunds at the provider too."""
        await self._connection.execute(_READ_REFUNDS, (now, payment_id))

    async def due_checks(self, now: datetime, limit: int) -> Sequence[DuePayment]:
        """Return payments whose look-up is due, the most overdue first."""
        return [DuePayment(read_payment(row), row["checks"]) for row in await self._all(_DUE, (now, limit))]

    async def save_action(self, action: PayerAction, now: datetime) -> None:
        """Keep where the payer must go; a newer address takes the place of an earlier one, the time to act stays."""
        await self._connection.execute(_SAVE_ACTION, (action.payment_id, action.url, action.expires_at, now))

    async def find_action(self, payment_id: str) -> PayerAction | None:
        """Return where the payer must go."""
        row = await self._one(
            "SELECT payment_id, url, expires_at FROM payer_actions WHERE payment_id = %s", (payment_id,)
        )
        return PayerAction(**row) if row else None

    async def waiting_for_payer(self, provider: str, limit: int) -> Sequence[Payment]:
        """Return payments in `requires_action` whose payer was not told yet, oldest first."""
        return [read_payment(row) for row in await self._all(_WAITING, (provider, limit))]

    async def mark_payer_told(self, payment_id: str, at: datetime) -> None:
        """Remember that the payer was told where to go."""
        await self._connection.execute("UPDATE payer_actions SET told_at = %s WHERE payment_id = %s", (at, payment_id))

    async def payers_to_remind(self, provider: str, now: datetime, limit: int) -> Sequence[Payment]:
        """Return payments in `requires_action` whose payer was told once, with half of the time to act over."""
        parameters = {"provider": provider, "now": now, "limit": limit}
        return [read_payment(row) for row in await self._all(_TO_REMIND, parameters)]

    async def mark_payer_reminded(self, payment_id: str, at: datetime) -> None:
        """Remember that the payer was reminded."""
        await self._connection.execute(
            "UPDATE payer_actions SET reminded_at = %s WHERE payment_id = %s", (at, payment_id)
        )

    async def expired_actions(
        self, provider: str, now: datetime, untold_since: datetime, limit: int
    ) -> Sequence[Payment]:
        """Return payments in `requires_action` whose time to act is over, or who have no link for too long."""
        return [read_payment(row) for row in await self._all(_EXPIRED, (provider, now, untold_since, limit))]

    async def method_at(self, tenant_id: str, provider: str) -> PaymentMethod | None:
        """Return how the tenant pays by this provider."""
        row = await self._one(_METHOD_AT, (tenant_id, provider))
        return PaymentMethod(**row) if row else None

    async def save_payer_method(self, method: PaymentMethod, now: datetime) -> None:
        """Store how a tenant pays; earlier references of the same provider are replaced, later ones stay.

        Raises `InvalidInputError` (`unknown_tenant`).
        """
        values = (method.tenant_id, method.provider, method.customer_reference, method.method_reference, now)
        try:
            async with self._connection.transaction():
                await self._connection.execute(_SAVE_METHOD, values)
        except ForeignKeyViolation:
            raise InvalidInputError([Fault("unknown_tenant", f"no tenant {method.tenant_id!r}")]) from None

    async def remove_payer_method(self, provider: str, customer_reference: str | None, method_reference: str) -> bool:
        """Forget a saved method that is no longer usable; False if it was not the one in use."""
        values = {"provider": provider, "customer": customer_reference, "method": method_reference}
        found = await self._connection.execute(_REMOVE_METHOD, values)
        return found.rowcount > 0

    async def tenant_of_customer(self, provider: str, customer_reference: str) -> str | None:
        """Return the tenant who is this customer at the provider."""
        row = await self._one(
            "SELECT tenant_id FROM payment_methods WHERE provider = %s AND customer_reference = %s",
            (provider, customer_reference),
        )
        return row["tenant_id"] if row else None
