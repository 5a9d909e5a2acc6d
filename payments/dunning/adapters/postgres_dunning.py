"""Dunning's book in PostgreSQL: cases under the invoice's own lock, steps, accounts and their history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from core.calendar import Calendar
from core.errors import must_hold
from core.ids import derive_id
from core.messages import AccountStanding, encode_message
from core.period import format_instant
from core.topics import ACCOUNT_STANDING
from payments.domain.payment import PaymentStatus
from payments.dunning.domain.case import Attempt, Stage, UnpaidInvoice, worst
from payments.dunning.domain.reminder import Reminder, message_id_of
from payments.dunning.domain.schedule import DoneStep, PlannedStep
from payments.dunning.ports import HELD_FOR, STARTED, Addressee, Standing, StartedRetry
from runtime.outbox import append_event
from runtime.postgres import Connection, Pool
from runtime.webhooks_out.queue import enqueue

_IS_OPEN = "invoice.status IN ('finalized', 'overdue') AND invoice.amount_due > invoice.amount_paid"
# Never looked at and due soon, or with a charge that failed; to be looked at by now; changed since; closed meanwhile.
_DUE = f"""
SELECT invoice.invoice_id FROM invoices AS invoice LEFT JOIN dunning_cases AS seen USING (invoice_id)
WHERE {_IS_OPEN} AND (
    CASE WHEN seen.invoice_id IS NULL OR NOT seen.is_open THEN invoice.due_at <= %(soon)s OR EXISTS (
        SELECT FROM payments WHERE payments.invoice_id = invoice.invoice_id AND status IN ('failed', 'canceled'))
    ELSE seen.look_at <= %(now)s
        OR EXISTS (SELECT FROM payments
                   WHERE payments.invoice_id = invoice.invoice_id AND updated_at >= seen.looked_at)
        OR EXISTS (SELECT FROM payment_methods
                   WHERE payment_methods.tenant_id = invoice.tenant_id AND created_at >= seen.looked_at)
        OR EXISTS (SELECT FROM dunning_steps AS step WHERE step.invoice_id = invoice.invoice_id
                   AND outcome = '{STARTED}' AND held_until <= %(now)s)
    END)
UNION ALL
SELECT invoice.invoice_id FROM dunning_cases AS seen JOIN invoices AS invoice USING (invoice_id)
WHERE seen.is_open AND NOT ({_IS_OPEN})
LIMIT %(limit)s
"""  # noqa: S608 - put together of constants
_LOCK = """
SELECT invoice_id, coalesce(number, '') AS number, tenant_id, status, currency, amount_due - amount_paid AS amount_open,
    issued_at, due_at, coalesce(snapshot -> 'plan' ->> 'id', '') AS tier
FROM invoices WHERE invoice_id = %s AND number IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED
"""
_TENANT = """
SELECT name, email, language, time_zone, billing_anchor_day,
    (SELECT max(created_at) FROM payment_methods
     WHERE payment_methods.tenant_id = tenants.tenant_id AND customer_reference IS NOT NULL) AS method_saved_at
FROM tenants WHERE tenant_id = %s
"""
_ATTEMPTS = """
SELECT payment_id, attempt, provider, status, failure_code AS code, failure_reason AS reason, created_at,
    updated_at AS changed_at
FROM payments WHERE invoice_id = %s ORDER BY attempt
"""
_STEPS = """
SELECT name, kind, planned_at, done_at, outcome, retry_of, held_until FROM dunning_steps WHERE invoice_id = %s
ORDER BY done_at, planned_at
"""
_NOTE = """
INSERT INTO dunning_cases (invoice_id, tenant_id, stage, waits_for, looked_at, look_at, is_open)
VALUES (%(invoice_id)s, %(tenant_id)s, %(stage)s, %(waits_for)s, %(now)s, %(look_at)s, %(is_open)s)
ON CONFLICT (invoice_id) DO UPDATE SET stage = excluded.stage, waits_for = excluded.waits_for,
    looked_at = excluded.looked_at, look_at = excluded.look_at, is_open = excluded.is_open
"""
_TAKE = """
INSERT INTO dunning_steps (invoice_id, name, kind, planned_at, done_at, outcome, amount_open, retry_of, held_until)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_QUEUE = """
INSERT INTO dunning_mails (message_id, invoice_id, step, tenant_id, payload, status, next_attempt_at, created_at)
VALUES (%s, %s, %s, %s, %s, 'pending', %s, %s)
"""
# The account's row is made on first sight and locked: invoices of one tenant change it one after the other.
_STAND = """
INSERT INTO dunning_accounts (tenant_id, stage, since) VALUES (%s, 'current', %s)
ON CONFLICT (tenant_id) DO UPDATE SET tenant_id = excluded.tenant_id
RETURNING stage, since, paused_at, paused_until, pause_reason, paused_by
"""
_CHANGE = """
INSERT INTO dunning_account_changes
    (tenant_id, kind, stage_before, stage_after, invoice_id, reason, changed_by, changed_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_FINISH = """
UPDATE dunning_steps SET outcome = %(outcome)s, payment_id = %(payment_id)s, held_until = NULL
WHERE invoice_id = %(invoice_id)s AND name = %(name)s AND outcome = 'started'
"""
_AGAIN = "UPDATE dunning_cases SET look_at = %s WHERE is_open AND {} = %s"


class PostgresDunning:
    """`DunningBook` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, now: datetime, ahead: timedelta, limit: int) -> Sequence[str]:
        """Return the ids of invoices to look at now."""
        asked = {"now": now, "soon": now + ahead, "limit": limit}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_DUE.encode(), asked)).fetchall()
        return [row["invoice_id"] for row in rows]

    @asynccontextmanager
    async def open_case(self, invoice_id: str) -> AsyncIterator[PostgresCase | None]:
        """Lock an invoice; None if it is unknown, or somebody else is at it just now."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(_LOCK, (invoice_id,))).fetchone()
            yield None if row is None else await _open(connection, row)

    async def finish_retry(
        self, invoice_id: str, name: str, outcome: str, payment_id: str | None, now: datetime
    ) -> None:
        """Write down what came of a retry, and look at the invoice again."""
        given = {"outcome": outcome, "payment_id": payment_id, "invoice_id": invoice_id, "name": name}
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_FINISH, given)
            await connection.execute(_AGAIN.format("invoice_id").encode(), (now, invoice_id))

    async def pause(
        self, tenant_id: str, *, until: datetime | None, reason: str, by: str, now: datetime
    ) -> Standing | None:
        """Let no step be taken for an account until an instant, or until it is resumed; None if it was paused."""
        async with self._pool.connection() as connection, connection.transaction():
            before = await _stand(connection, tenant_id, now)
            if before.is_paused(now):
                return None
            await connection.execute(
                "UPDATE dunning_accounts SET paused_at = %s, paused_until = %s, pause_reason = %s, paused_by = %s"
                " WHERE tenant_id = %s",
                (now, until, reason, by, tenant_id),
            )
            stage = before.stage.value
            await connection.execute(_CHANGE, (tenant_id, "paused", stage, stage, None, reason, by, now))
            await connection.execute(_AGAIN.format("tenant_id").encode(), (now, tenant_id))
            return await _stand(connection, tenant_id, now)

    async def resume(self, tenant_id: str, *, reason: str, by: str, now: datetime) -> Standing | None:
        """Let steps be taken again; None if the account was not paused."""
        async with self._pool.connection() as connection, connection.transaction():
            before = await _stand(connection, tenant_id, now)
            if before.paused_at is None:
                return None
            await connection.execute(
                "UPDATE dunning_accounts SET paused_at = NULL, paused_until = NULL, pause_reason = '', paused_by = ''"
                " WHERE tenant_id = %s",
                (tenant_id,),
            )
            stage = before.stage.value
            await connection.execute(_CHANGE, (tenant_id, "resumed", stage, stage, None, reason, by, now))
            await connection.execute(_AGAIN.format("tenant_id").encode(), (now, tenant_id))
            return await _stand(connection, tenant_id, now)


class PostgresCase:
    """An `OpenCase` within its transaction."""

    def __init__(
        self,
        connection: Connection,
        invoice: UnpaidInvoice,
        done: Sequence[DoneStep],
        started: StartedRetry | None,
        addressee: Addressee,
        standing: Standing,
    ) -> None:
        self._connection, self.invoice, self.done, self.started = connection, invoice, done, started
        self.addressee, self.standing = addressee, standing

    async def note(self, stage: Stage, waits_for: str, look_at: datetime | None, now: datetime) -> None:
        """Write down how far it has come with the invoice, and when to look again."""
        await self._connection.execute(
            _NOTE,
            {
                "invoice_id": self.invoice.invoice_id,
                "tenant_id": self.invoice.tenant_id,
                "stage": stage.value,
                "waits_for": waits_for,
                "now": now,
                "look_at": look_at,
                "is_open": self.invoice.is_open,
            },
        )

    async def take(self, planned: PlannedStep, outcome: str, now: datetime, *, retry_of: str | None = None) -> None:
        """Write a step down as taken; a retry that is `started` is held by whoever calls."""
        held_until = now + HELD_FOR if outcome == STARTED else None
        step, of = planned.step, self.invoice
        await self._connection.execute(
            _TAKE,
            (
                of.invoice_id,
                step.name,
                step.kind.value,
                planned.due_at,
                now,
                outcome,
                of.amount_open,
                retry_of,
                held_until,
            ),
        )

    async def hold(self, started: StartedRetry, now: datetime) -> None:
        """Take over a retry that somebody began and left."""
        await self._connection.execute(
            "UPDATE dunning_steps SET held_until = %s WHERE invoice_id = %s AND name = %s",
            (now + HELD_FOR, self.invoice.invoice_id, started.name),
        )

    async def queue_mail(self, planned: PlannedStep, reminder: Reminder, now: datetime) -> None:
        """Put the step's mail where it waits to be sent."""
        of, name = self.invoice, planned.step.name
        payload = Jsonb(msgspec.to_builtins(reminder))
        row = (message_id_of(of.invoice_id, name), of.invoice_id, name, of.tenant_id, payload, now, now)
        await self._connection.execute(_QUEUE, row)

    async def change_standing(self, now: datetime, reason: str) -> tuple[Stage, Stage]:
        """Set the account to the worst of its open invoices, with its history and its announcement."""
        tenant_id = self.invoice.tenant_id
        before = (await _stand(self._connection, tenant_id, now)).stage
        rows = await (
            await self._connection.execute(
                "SELECT DISTINCT stage FROM dunning_cases WHERE tenant_id = %s AND is_open", (tenant_id,)
            )
        ).fetchall()
        stage = worst(Stage(row["stage"]) for row in rows)
        if stage is before:
            return before, stage
        await self._connection.execute(
            "UPDATE dunning_accounts SET stage = %s, since = %s WHERE tenant_id = %s", (stage.value, now, tenant_id)
        )
        change = (tenant_id, "stage", before.value, stage.value, self.invoice.invoice_id, reason, "schedule", now)
        await self._connection.execute(_CHANGE, change)
        if stage.is_shut_out is not before.is_shut_out:
            await _announce(self._connection, tenant_id, stage, reason, now)
        return before, stage


async def _open(connection: Connection, row: dict[str, Any]) -> PostgresCase:
    tenant = await (await connection.execute(_TENANT, (row["tenant_id"],))).fetchone()
    must_hold(tenant is not None, f"no tenant {row['tenant_id']}")
    assert tenant is not None
    attempts = await (await connection.execute(_ATTEMPTS, (row["invoice_id"],))).fetchall()
    steps = await (await connection.execute(_STEPS, (row["invoice_id"],))).fetchall()
    invoice = UnpaidInvoice(
        **row,
        calendar=Calendar(tenant["time_zone"], tenant["billing_anchor_day"]),
        attempts=tuple(Attempt(**{**one, "status": PaymentStatus(one["status"])}) for one in attempts),
        method_saved_at=tenant["method_saved_at"],
    )
    begun = [one for one in steps if one["outcome"] == STARTED]
    must_hold(len(begun) < 2, f"{invoice.invoice_id}: two retries at once")
    return PostgresCase(
        connection,
        invoice,
        [DoneStep(one["name"], one["planned_at"], one["done_at"]) for one in steps],
        next((StartedRetry(one["name"], one["retry_of"], one["held_until"]) for one in begun), None),
        Addressee(tenant["name"], tenant["email"], tenant["language"]),
        await _stand(connection, invoice.tenant_id, row["issued_at"]),
    )


async def _stand(connection: Connection, tenant_id: str, now: datetime) -> Standing:
    row = await (await connection.execute(_STAND, (tenant_id, now))).fetchone()
    must_hold(row is not None, "an account has no row")
    assert row is not None
    return Standing(**{**row, "stage": Stage(row["stage"])})


async def _announce(connection: Connection, tenant_id: str, stage: Stage, reason: str, now: datetime) -> None:
    event: Any = "account.suspended" if stage.is_shut_out else "account.restored"
    at = format_instant(now)
    event_id = derive_id("evt", event, tenant_id, at)
    message = AccountStanding(event=event, tenant_id=tenant_id, stage=stage.value, reason=reason, at=at)
    await append_event(
        connection, ACCOUNT_STANDING, key=tenant_id, event_id=event_id, payload=encode_message(message), now=now
    )
    data: Mapping[str, Any] = {"tenant_id": tenant_id, "stage": stage.value, "reason": reason}
    await enqueue(
        connection, message_id=event_id, event_type=event, tenant_id=tenant_id, data=data, occurred_at=now, now=now
    )
