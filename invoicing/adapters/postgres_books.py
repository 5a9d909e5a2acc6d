"""Tenants' accounts in PostgreSQL: one transaction with the tenant's row locked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from core.meters import Meter
from core.period import Period
from invoicing.adapters.postgres_issued import PostgresIssued
from invoicing.adapters.stored_billed import AskedItems, read_billed, read_invoiced
from invoicing.adapters.stored_invoices import take_numbers, write_invoices
from invoicing.adapters.stored_subscribed import read_subscribed
from invoicing.adapters.stored_tax import read_taxed_before
from invoicing.domain.invoice import Buyer, Invoice
from invoicing.domain.lines import Billed
from invoicing.domain.subscribed import Subscribed
from invoicing.domain.tax.taxed_lines import Bucket, TaxedBefore
from ledger.adapters.postgres import post
from ledger.domain.entry import LedgerEntry
from rating.adapters.postgres import read_plan_documents
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.rate_timeline import PlanReference
from runtime.postgres import Connection, Pool
from runtime.stored_meters import read_meters

_TENANT = (
    "SELECT tenant_id, name, email, address, country, currency, parked_reason, time_zone, billing_anchor_day,"
    " consolidated_invoices,"
    " state, postal_code, is_business, vat_number, vat_valid, vat_checked_at, tax_exempt, tax_exempt_code, language"
    " FROM tenants WHERE tenant_id = ANY(%s)"
)
# NO KEY: rows of other tables that refer to the tenant may still be written meanwhile.
_LOCK = " ORDER BY tenant_id FOR NO KEY UPDATE"
_TENANT_OF = "SELECT tenant_id FROM invoices WHERE number = %(name)s OR invoice_id = %(name)s LIMIT 1"


class PostgresBooks:
    """`Books` over a pool; an account is a row lock on the tenant."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def open_account(self, tenant_id: str) -> AsyncIterator[PostgresAccount | None]:
        """Lock a tenant's account in a transaction that commits unless the block raises; None for an unknown tenant."""
        async with self._pool.connection() as connection, connection.transaction():
            buyer = (await lock_tenants(connection, [tenant_id])).get(tenant_id)
            yield PostgresAccount(connection, buyer) if buyer else None

    @asynccontextmanager
    async def view_account(self, tenant_id: str) -> AsyncIterator[PostgresAccount | None]:
        """Open a tenant's account for reading, without a lock; whatever is written there is taken back."""
        async with self._pool.connection() as connection, connection.transaction(force_rollback=True):
            buyer = (await _read_tenants(connection, _TENANT, [tenant_id])).get(tenant_id)
            yield PostgresAccount(connection, buyer) if buyer else None

    async def tenant_of(self, reference: str) -> str | None:
        """Return whose an invoice is, by its number or id; None if there is none."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_TENANT_OF, {"name": reference})).fetchone()
        return row["tenant_id"] if row else None


async def lock_tenants(connection: Connection, tenant_ids: Sequence[str]) -> dict[str, Buyer]:
    """Lock tenants' accounts until the caller's transaction ends and return them by id, without unknown ones."""
    return await _read_tenants(connection, _TENANT + _LOCK, tenant_ids)


async def _read_tenants(connection: Connection, query: str, tenant_ids: Sequence[str]) -> dict[str, Buyer]:
    rows = await (await connection.execute(query.encode(), (list(tenant_ids),))).fetchall()
    return {row["tenant_id"]: Buyer(**row) for row in rows}


class PostgresAccount:
    """An `Account` within its transaction."""

    def __init__(self, connection: Connection, buyer: Buyer) -> None:
        self._connection, self._buyer = connection, buyer
        self._ledger = PostgresCreditLedger(connection)
        self._issued = PostgresIssued(connection, buyer.tenant_id)
        self._plans_at_start: dict[str, str] = {}

    @property
    def buyer(self) -> Buyer:
        """The tenant."""
        return self._buyer

    @property
    def ledger(self) -> PostgresCreditLedger:
        """The tenant's credits, moved in this transaction."""
        return self._ledger

    @property
    def issued(self) -> PostgresIssued:
        """The tenant's documents after they were issued, and its drafts."""
        return self._issued

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        """Write down in the double-entry ledger what a cause moved."""
        return await post(self._connection, entries, now)

    async def subscriptions(self, before: datetime) -> list[Subscribed]:
        """Return the subscriptions that began before an instant, by start, ended ones too."""
        subscribed = await read_subscribed(self._connection, tenant_ids=[self._buyer.tenant_id])
        return self._began_before(subscribed, before)

    def _began_before(self, subscribed: Sequence[Subscribed], before: datetime) -> list[Subscribed]:
        for one in subscribed:
            held = one.start.held
            reference = PlanReference(held.plan_id, held.plan_version, held.overrides)
            self._plans_at_start[one.subscription_id] = reference.text
        return [one for one in subscribed if one.start.started_at < before]

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        return await read_meters(self._connection)

    async def newest_version(self, plan_id: str) -> int | None:
        """Return the newest version of a plan, None if there is no such plan."""
        rows = await self._rows("SELECT max(version) AS newest FROM plan_versions WHERE plan_id = %s", (plan_id,))
        newest: int | None = rows[0]["newest"]
        return newest

    async def plan_documents(
        self, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], Mapping[str, Any]]:
        """Return the stored documents of plan versions; unknown ones are absent."""
        return await read_plan_documents(self._connection, versions)

    async def billed(
        self, subscription_id: str, *, settling: Sequence[datetime], item_keys: Sequence[str]
    ) -> dict[str, Billed]:
        """Return what was billed, summed over all invoices, by item key."""
        asked = self._asked(subscription_id, settling, item_keys)
        return (await read_billed(self._connection, [asked]))[subscription_id]

    def _asked(self, subscription_id: str, settling: Sequence[datetime], item_keys: Sequence[str]) -> AskedItems:
        plan = self._plans_at_start.get(subscription_id, "")
        return AskedItems(subscription_id, plan, tuple(settling), tuple(item_keys))

    async def invoiced(self, subscription_id: str) -> dict[datetime, datetime]:
        """Return, by the start of each billing period that was invoiced, when that was done last."""
        return (await read_invoiced(self._connection, [subscription_id]))[subscription_id]

    async def next_sequence(self, subscription_id: str, period: Period) -> int:
        """Return the sequence the period's next document gets; one that a void document has is used up."""
        return await self._issued.next_sequence(subscription_id, period)

    async def taxed_before(self, invoice_ids: Sequence[str]) -> Mapping[Bucket, TaxedBefore]:
        """Return what invoices and all that was taken back of them came to, by what is rounded together."""
        return await read_taxed_before(self._connection, invoice_ids)

    async def take_number(self, series: str) -> int:
        """Return the next number of a series; it is used up only if the transaction commits, so no gap can appear."""
        return (await take_numbers(self._connection, series, 1))[0]

    async def add(self, invoice: Invoice) -> None:
        """Store a finalized invoice and announce it, in this transaction."""
        await write_invoices(self._connection, [invoice], invoice.issued_at)

    async def park(self, reason: str, now: datetime) -> None:
        """Let nothing be invoiced any more until a person has looked."""
        await self._connection.execute(
            "UPDATE tenants SET parked_reason = %s, parked_at = %s WHERE tenant_id = %s",
            (reason, now, self._buyer.tenant_id),
        )

    async def _rows(self, query: str, arguments: Any) -> list[dict[str, Any]]:
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()
