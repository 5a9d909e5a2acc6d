"""Refunds and disputes in PostgreSQL. Owns their SQL; a trigger holds the sum of refunds within what was settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.errors import CheckViolation

from core.errors import BrokenInvariantError
from payments.adapters.postgres_rows import Rows, read_shared, shared_values, storable
from payments.domain.dispute import Dispute, DisputeStatus
from payments.domain.refund import Refund, RefundStatus
from payments.domain.schedule import FIRST_CHECK_AFTER
from payments.ports import DueRefund

REFUND_COLUMNS = (
    "refund_id, payment_id, invoice_id, tenant_id, provider, provider_reference, amount, currency, reason,"
    " requested_by, status, failure_code, failure_reason, created_at, settled_at"
)
_SAVE_REFUND = """
INSERT INTO refunds (refund_id, payment_id, invoice_id, tenant_id, provider, provider_reference, amount, currency,
                     reason, requested_by, status, failure_code, failure_reason, created_at, updated_at, settled_at,
                     next_check_at)
VALUES (%(refund_id)s, %(payment_id)s, %(invoice_id)s, %(tenant_id)s, %(provider)s, %(provider_reference)s,
        %(amount)s, %(currency)s, %(reason)s, %(requested_by)s, %(status)s, %(failure_code)s, %(failure_reason)s,
        %(created_at)s, %(now)s, %(settled_at)s, %(next_check_at)s)
ON CONFLICT (refund_id) DO UPDATE
SET provider_reference = excluded.provider_reference, status = excluded.status, failure_code = excluded.failure_code,
    failure_reason = excluded.failure_reason, settled_at = excluded.settled_at, updated_at = excluded.updated_at,
    next_check_at = CASE WHEN excluded.status IN ('pending', 'processing') THEN refunds.next_check_at END
"""
_REFUNDS_OF = f"SELECT {REFUND_COLUMNS} FROM refunds WHERE payment_id = %s ORDER BY created_at, refund_id"  # noqa: S608
_REFUND = f"SELECT {REFUND_COLUMNS} FROM refunds WHERE refund_id = %s"  # noqa: S608
_DUE_REFUNDS = f"""
SELECT {REFUND_COLUMNS}, checks FROM refunds WHERE next_check_at <= %s ORDER BY next_check_at, refund_id LIMIT %s
"""  # noqa: S608
_SCHEDULE_REFUND = "UPDATE refunds SET checks = %s, next_check_at = %s WHERE refund_id = %s"
_DISPUTE_COLUMNS = (
    "dispute_id, payment_id, invoice_id, tenant_id, provider, provider_reference, amount, currency, reason, status,"
    " opened_at, evidence_due_at, closed_at"
)
_SAVE_DISPUTE = """
INSERT INTO disputes (dispute_id, payment_id, invoice_id, tenant_id, provider, provider_reference, amount, currency,
                      reason, status, opened_at, evidence_due_at, closed_at, updated_at)
VALUES (%(dispute_id)s, %(payment_id)s, %(invoice_id)s, %(tenant_id)s, %(provider)s, %(provider_reference)s,
        %(amount)s, %(currency)s, %(reason)s, %(status)s, %(opened_at)s, %(evidence_due_at)s, %(closed_at)s, %(now)s)
ON CONFLICT (dispute_id) DO UPDATE
SET amount = excluded.amount, status = excluded.status, evidence_due_at = excluded.evidence_due_at,
    closed_at = excluded.closed_at, updated_at = excluded.updated_at
"""
_DISPUTES_OF = f"SELECT {_DISPUTE_COLUMNS} FROM disputes WHERE payment_id = %s ORDER BY opened_at, dispute_id"  # noqa: S608
_DISPUTE = f"SELECT {_DISPUTE_COLUMNS} FROM disputes WHERE dispute_id = %s"  # noqa: S608


class RefundRows(Rows):
    """The part of `payments.ports.PaymentUnit` that is about refunds and disputes."""

    async def save_refund(self, refund: Refund, now: datetime) -> None:
        """Write a refund, new or changed."""
        values = {
            **shared_values(refund),
            "refund_id": refund.refund_id,
            "reason": storable(refund.reason),
            "requested_by": storable(refund.requested_by),
            "failure_code": refund.failure_code,
            "failure_reason": storable(refund.failure_reason),
            "created_at": refund.created_at,
            "settled_at": refund.settled_at,
            "next_check_at": now + FIRST_CHECK_AFTER if refund.is_open else None,
            "now": now,
        }
        try:
            async with self._connection.transaction():
                await self._connection.execute(_SAVE_REFUND, values)
        except CheckViolation as error:
            # Whoever calls has counted before, under the payment's lock.
            raise BrokenInvariantError(f"{refund.refund_id}: {error.diag.message_primary}") from error

    async def refunds_of(self, payment_id: str) -> Sequence[Refund]:
        """Return all refunds of a payment, oldest first."""
        return [read_refund(row) for row in await self._all(_REFUNDS_OF, (payment_id,))]

    async def find_refund(self, refund_id: str) -> Refund | None:
        """Return a refund by our id."""
        row = await self._one(_REFUND, (refund_id,))
        return read_refund(row) if row else None

    async def schedule_refund_check(self, refund_id: str, checks: int, at: datetime | None) -> None:
        """Say when a refund's outcome is to be looked up next; None for never."""
        await self._connection.execute(_SCHEDULE_REFUND, (checks, at, refund_id))

    async def due_refund_checks(self, now: datetime, limit: int) -> Sequence[DueRefund]:
        """Return refunds whose look-up is due, the most overdue first."""
        return [DueRefund(read_refund(row), row["checks"]) for row in await self._all(_DUE_REFUNDS, (now, limit))]

    async def save_dispute(self, dispute: Dispute, now: datetime) -> None:
        """Write a dispute, new or changed."""
        await self._connection.execute(
            _SAVE_DISPUTE,
            {
                **shared_values(dispute),
                "dispute_id": dispute.dispute_id,
                "reason": storable(dispute.reason),
                "opened_at": dispute.opened_at,
                "evidence_due_at": dispute.evidence_due_at,
                "closed_at": dispute.closed_at,
                "now": now,
            },
        )

    async def find_dispute(self, dispute_id: str) -> Dispute | None:
        """Return a dispute."""
        row = await self._one(_DISPUTE, (dispute_id,))
        return _dispute(row) if row else None

    async def disputes_of(self, payment_id: str) -> Sequence[Dispute]:
        """Return all disputes of a payment, oldest first."""
        return [_dispute(row) for row in await self._all(_DISPUTES_OF, (payment_id,))]


def read_refund(row: Mapping[str, Any]) -> Refund:
    """Return a refund of a row with `REFUND_COLUMNS`."""
    return Refund(
        **read_shared(row),
        refund_id=row["refund_id"],
        reason=row["reason"],
        requested_by=row["requested_by"],
        created_at=row["created_at"],
        status=RefundStatus(row["status"]),
        failure_code=row["failure_code"],
        failure_reason=row["failure_reason"],
        settled_at=row["settled_at"],
    )


def _dispute(row: Mapping[str, Any]) -> Dispute:
    return Dispute(
        **read_shared(row),
        dispute_id=row["dispute_id"],
        reason=row["reason"],
        status=DisputeStatus(row["status"]),
        opened_at=row["opened_at"],
        evidence_due_at=row["evidence_due_at"],
        closed_at=row["closed_at"],
    )
