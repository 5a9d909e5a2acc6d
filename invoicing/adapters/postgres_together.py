"""Many tenants' accounts in one transaction: what all of them need is read at once, what they issue written at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

from core.errors import must_hold
from core.meters import Meter
from core.period import Period
from invoicing.adapters.postgres_books import PostgresAccount, lock_tenants
from invoicing.adapters.postgres_issued import PostgresIssued
from invoicing.adapters.stored_billed import AskedItems, read_billed, read_invoiced
from invoicing.adapters.stored_invoices import take_numbers, write_invoices
from invoicing.adapters.stored_subscribed import read_subscribed
from invoicing.domain.invoice import Buyer, Draft, Invoice
from invoicing.domain.lines import Billed
from invoicing.domain.standing import Application, Standing
from invoicing.domain.subscribed import Subscribed
from invoicing.read_together import asked_once
from invoicing.together_ports import TakeAloneError
from ledger.adapters.postgres import post
from ledger.domain.entry import LedgerEntry
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.credit import Credit, CreditEntry, CreditGrant, EntryKind
from runtime.postgres import Connection, Pool
from runtime.stored_meters import read_meters

_SEQUENCES = (
    "SELECT subscription_id, period_start, max(sequence) AS newest, bool_or(status = 'draft') AS has_draft"
    " FROM invoices WHERE subscription_id = ANY(%s) GROUP BY subscription_id, period_start"
)


@dataclass
class _Shared:
    """What the accounts of one transaction have in common."""

    connection: Connection
    meters: dict[str, Meter]
    subscribed: dict[str, list[Subscribed]]
    invoiced: Mapping[str, dict[datetime, datetime]]
    sequences: dict[tuple[str, datetime], tuple[int, bool]]
    credits: dict[str, list[Credit]]
    invoices: list[Invoice] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)
    # Who has taken a number, or been given something to write.
    written: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Of the connection, not of this object: what refers to itself keeps a batch's invoices until garbage is
        # collected.
        self.billed = asked_once(partial(_billed, self.connection))
        self.number = asked_once(partial(_numbers, self.connection))
        self.drawn = asked_once(partial(_drawn, self.connection))


async def _billed(connection: Connection, asked: Sequence[AskedItems]) -> list[dict[str, Billed]]:
    found = await read_billed(connection, asked)
    return [found[one.subscription_id] for one in asked]


async def _numbers(connection: Connection, series: Sequence[str]) -> list[int]:
    taken = {one: iter(await take_numbers(connection, one, series.count(one))) for one in sorted(set(series))}
    return [next(taken[one]) for one in series]


async def _drawn(connection: Connection, invoice_ids: Sequence[str]) -> list[list[CreditEntry]]:
    found = await PostgresCreditLedger(connection).entries_for_many(invoice_ids)
    return [found[one] for one in invoice_ids]


class PostgresBooksTogether:
    """`BooksTogether` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def open_together(self, tenant_ids: Sequence[str]) -> AsyncIterator[PostgresTogether]:
        """Lock tenants' accounts in one transaction that commits unless the block raises."""
        async with self._pool.connection() as connection, connection.transaction():
            # By id, so that two who lock several never wait for each other.
            buyers = await lock_tenants(connection, sorted(tenant_ids))
            yield PostgresTogether(await _read_shared(connection, sorted(buyers)), buyers)


async def _read_shared(connection: Connection, tenant_ids: Sequence[str]) -> _Shared:
    subscribed: dict[str, list[Subscribed]] = {}
    for one in await read_subscribed(connection, tenant_ids=tenant_ids):
        subscribed.setdefault(one.start.tenant_id, []).append(one)
    subscription_ids = [one.subscription_id for found in subscribed.values() for one in found]
    rows = await (await connection.execute(_SEQUENCES, (subscription_ids,))).fetchall()
    credits: dict[str, list[Credit]] = {}
    for credit in await PostgresCreditLedger(connection).lock_credits_of_many(tenant_ids):
        credits.setdefault(credit.grant.tenant_id, []).append(credit)
    return _Shared(
        connection,
        meters=await read_meters(connection),
        subscribed=subscribed,
        invoiced=await read_invoiced(connection, subscription_ids),
        sequences={(row["subscription_id"], row["period_start"]): (row["newest"], row["has_draft"]) for row in rows},
        credits=credits,
    )


class PostgresTogether:
    """`AccountsTogether` within their transaction."""

    def __init__(self, shared: _Shared, buyers: Mapping[str, Buyer]) -> None:
        self._shared = shared
        self._accounts = {tenant_id: _Account(shared, buyer) for tenant_id, buyer in buyers.items()}

    @property
    def accounts(self) -> Mapping[str, PostgresAccount]:
        """The accounts by tenant; unknown tenants are absent."""
        return self._accounts

    def has_written(self, tenant_id: str) -> bool:
        """Tell whether an account has taken a number or been given something to write."""
        return tenant_id in self._shared.written

    async def write(self) -> None:
        """Write down all that the accounts were given."""
        shared = self._shared
        if not shared.invoices:
            return
        await write_invoices(shared.connection, shared.invoices, max(one.issued_at for one in shared.invoices))
        await post(shared.connection, shared.entries, max(one.issued_at for one in shared.invoices))


class _Account(PostgresAccount):
    """An account whose reads were made, or are made, for all at once; its writes wait for the end."""

    def __init__(self, shared: _Shared, buyer: Buyer) -> None:
        super().__init__(shared.connection, buyer)
        self._shared = shared
        self._ledger = _Credits(shared, buyer.tenant_id)
        self._issued = _Issued(shared, buyer.tenant_id)

    async def subscriptions(self, before: datetime) -> list[Subscribed]:
        """Return the subscriptions that began before an instant, by start, ended ones too."""
        return self._began_before(self._shared.subscribed.get(self._buyer.tenant_id, []), before)

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        return self._shared.meters

    async def billed(
        self, subscription_id: str, *, settling: Sequence[datetime], item_keys: Sequence[str]
    ) -> dict[str, Billed]:
        """Return what was billed, summed over all invoices, by item key."""
        return await self._shared.billed(self._asked(subscription_id, settling, item_keys))

    async def invoiced(self, subscription_id: str) -> dict[datetime, datetime]:
        """Return, by the start of each billing period that was invoiced, when that was done last."""
        return self._shared.invoiced[subscription_id]

    async def take_number(self, series: str) -> int:
        """Return the next number of a series."""
        self._shared.written.add(self._buyer.tenant_id)
        return await self._shared.number(series)

    async def add(self, invoice: Invoice) -> None:
        """Keep a finalized invoice until all are written."""
        must_hold(invoice.tenant_id in self._shared.written, f"{invoice.number} is nobody's")
        self._shared.invoices.append(invoice)

    async def post(self, entries: Sequence[LedgerEntry], now: datetime) -> int:
        """Keep entries of the ledger until all are written."""
        must_hold(self._buyer.tenant_id in self._shared.written, "entries without a document")
        self._shared.entries += entries
        return len(entries)

    async def park(self, reason: str, now: datetime) -> NoReturn:
        """Not among others."""
        raise TakeAloneError


class _Issued(PostgresIssued):
    """A tenant's documents: those of the period are known, and what changes one is not done among others."""

    def __init__(self, shared: _Shared, tenant_id: str) -> None:
        super().__init__(shared.connection, tenant_id)
        self._shared = shared

    async def drafts(self, subscription_id: str, period: Period) -> list[Standing]:
        """Return that there are no drafts of a billing period; otherwise the account is taken alone."""
        if self._of_period(subscription_id, period)[1]:
            raise TakeAloneError
        return []

    async def next_sequence(self, subscription_id: str | None, period: Period) -> int:
        """Return the sequence that the period's next document gets, drafts and void ones counted."""
        return self._of_period(subscription_id or "", period)[0] + 1

    async def invoices(self, subscription_id: str | None) -> NoReturn:
        """Not among others: asked for by who takes something back."""
        raise TakeAloneError

    async def apply(self, credit_note_id: str, application: Application, at: datetime) -> NoReturn:
        """Not among others."""
        raise TakeAloneError

    async def close(self, invoice_id: str, status: str, *, reason: str, at: datetime) -> NoReturn:
        """Not among others."""
        raise TakeAloneError

    async def announce_void(self, standing: Standing, at: datetime) -> NoReturn:
        """Not among others."""
        raise TakeAloneError

    async def put_draft(self, draft: Draft, finalize_at: datetime, now: datetime) -> NoReturn:
        """Not among others."""
        raise TakeAloneError

    async def drop_draft(self, invoice_id: str) -> NoReturn:
        """Not among others."""
        raise TakeAloneError

    def _of_period(self, subscription_id: str, period: Period) -> tuple[int, bool]:
        return self._shared.sequences.get((subscription_id, period.start), (0, False))


class _Credits(PostgresCreditLedger):
    """A tenant's credits, locked already; who has any to draw is taken alone."""

    def __init__(self, shared: _Shared, tenant_id: str) -> None:
        super().__init__(shared.connection)
        self._shared, self._tenant_id = shared, tenant_id

    async def lock_credits(self, tenant_id: str) -> list[Credit]:
        """Return the tenant's credits that have a balance, by grant id."""
        return self._shared.credits.get(tenant_id, [])

    async def entries_for(self, invoice_id: str) -> list[CreditEntry]:
        """Return what an invoice drew and gave back, in the order in which it was written."""
        return await self._shared.drawn(invoice_id)

    async def add_grant(self, grant: CreditGrant) -> NoReturn:
        """Not among others."""
        raise TakeAloneError

    async def enter(self, grant: CreditGrant, kind: EntryKind, *given: Any, **named: Any) -> NoReturn:
        """Not among others."""
        raise TakeAloneError
