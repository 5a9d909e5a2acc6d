"""What people ask of dunning: how accounts stand, what was done, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from payments.dunning.adapters.postgres_dunning import PostgresDunning
from payments.dunning.domain.case import judge
from payments.dunning.domain.schedule import Schedules
from runtime.postgres import Pool

_ACCOUNTS = """
SELECT tenant_id, stage, since, paused_at, paused_until, pause_reason, paused_by,
    (SELECT count(*) FROM dunning_cases AS one WHERE one.tenant_id = account.tenant_id AND is_open) AS invoices
FROM dunning_accounts AS account
WHERE %(tenant)s::text IS NULL AND (stage <> 'current' OR paused_at IS NOT NULL) OR tenant_id = %(tenant)s
ORDER BY tenant_id
"""
_CASES = """
SELECT seen.invoice_id, number, seen.stage, waits_for, due_at, currency, amount_due - amount_paid AS amount_open,
    is_open
FROM dunning_cases AS seen JOIN invoices USING (invoice_id) WHERE seen.tenant_id = %s ORDER BY due_at, invoice_id
"""
_STEPS = """
SELECT dunning_steps.invoice_id, name, planned_at, done_at, outcome, amount_open, payment_id, mail.status AS mail,
    mail.attempts, mail.sent_at, mail.last_error
FROM dunning_steps LEFT JOIN dunning_mails AS mail
    ON mail.invoice_id = dunning_steps.invoice_id AND mail.step = dunning_steps.name
WHERE dunning_steps.invoice_id = ANY(%s) ORDER BY done_at, planned_at
"""
_HISTORY = """
SELECT kind, stage_before, stage_after, invoice_id, reason, changed_by, changed_at FROM dunning_account_changes
WHERE tenant_id = %s ORDER BY change_id
"""


@dataclass(frozen=True, slots=True)
class Status:
    """An account with its cases, their steps, what comes next of each (invoice, step, instant), and its history."""

    account: dict[str, Any]
    cases: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    upcoming: list[tuple[str, str, datetime]]
    history: list[dict[str, Any]]


class PostgresStatus:
    """Reads over a pool; changes nothing."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def accounts(self) -> list[dict[str, Any]]:
        """Return the accounts that are not current, or paused."""
        return await self._rows(_ACCOUNTS, {"tenant": None})

    async def status(self, tenant_id: str, schedules: Schedules, now: datetime) -> Status | None:
        """Return all of one account, None if dunning has never looked at it."""
        accounts = await self._rows(_ACCOUNTS, {"tenant": tenant_id})
        if not accounts:
            return None
        cases = await self._rows(_CASES, (tenant_id,))
        steps = await self._rows(_STEPS, ([case["invoice_id"] for case in cases],))
        upcoming: list[tuple[str, str, datetime]] = []
        book = PostgresDunning(self._pool)
        for case in cases:
            if not case["is_open"]:
                continue
            async with book.open_case(case["invoice_id"]) as opened:
                if opened is not None:
                    judged = judge(opened.invoice, schedules, opened.done, now)
                    upcoming += [(case["number"], one.step.name, one.due_at) for one in judged.upcoming]
        return Status(accounts[0], cases, steps, upcoming, await self._rows(_HISTORY, (tenant_id,)))

    async def _rows(self, query: str, arguments: Any) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments)).fetchall()
