"""A story's scene: an account of its own, tenants, invoices, statements, and the books looked at afterwards."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from psycopg.types.json import Jsonb

from core.bank_account import BankAccount
from core.clock import ManualClock
from core.messages import PaymentRefunded, PaymentSettled, decode_message
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.record_money_back import record_refund
from invoicing.settle_invoice import settle_invoice
from ledger.adapters.postgres import PostgresLedger
from payments.bank.adapters.postgres_desk import PostgresBankDesk
from payments.bank.confirm_match import Confirmed, Wanted, Wish, confirm_match
from payments.bank.confirm_return import confirm_return
from payments.bank.domain.match import Rules
from payments.bank.import_statement import Imported, import_statements, read_statements
from payments.bank.propose_matches import Proposed, propose_matches
from runtime.postgres import Pool
from tests.payments.bank.write_statements import TheStatement, Told, write_mt940

D = Decimal
OPENING = D("1000.00")
_numbers = itertools.count(1)


@dataclass
class Scene:
    pool: Pool
    start: datetime
    currency: str = "EUR"
    clock: ManualClock = field(init=False)
    account: BankAccount = field(init=False)
    statements: int = 0
    balance: Decimal = OPENING
    day: date = date(2026, 10, 5)
    tenants: list[str] = field(default_factory=list)
    brought: list[tuple[bytes, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualClock(self.start)
        number = f"{uuid4().int % 10**10:010d}"
        self.account = BankAccount(self.currency, "Meterbook", "Bank", account_number=number, routing="37040044")

    @property
    def desk(self) -> PostgresBankDesk:
        return PostgresBankDesk(self.pool)

    async def tenant(self, name: str = "Acme Industries AG") -> str:
        tenant = f"tenant-{uuid4().hex[:12]}"
        async with self.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, %s, 'books@acme.invalid', 'DE', %s, %s)",
                (tenant, name, self.currency, self.start),
            )
        self.tenants.append(tenant)
        return tenant

    async def invoice(self, tenant: str, amount: str, currency: str | None = None) -> str:
        """Store a finalized invoice and return its number, the ledger's entry of it included."""
        number = f"T{uuid4().hex[:8].upper()}-2026-{next(_numbers):06d}"
        async with self.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO invoices (invoice_id, tenant_id, origin, period_start, period_end, sequence, status,"
                " number, currency, subtotal, total, issued_at, due_at, snapshot, snapshot_sha256, engine_version)"
                " VALUES (%s, %s, 'one_time', %s, %s, 1, 'finalized', %s, %s, %s, %s, %s, %s, %s, 'x', 'test')",
                (
                    f"inv_{uuid4().hex}", tenant, datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC),
                    number, currency or self.currency, D(amount), D(amount), datetime(2026, 10, 1, tzinfo=UTC),
                    datetime(2026, 10, 1, tzinfo=UTC) + timedelta(days=30 + next(_numbers)), Jsonb({}),
                ),
            )  # fmt: skip
        return number

    def told(self, amount: str, text: str = "", **more: Any) -> Told:
        return Told(self.day, D(amount), text, **{"payer": "Acme Industries", **more})

    def statement(self, *entries: Told) -> TheStatement:
        """Return the bank's next statement of the account."""
        self.statements += 1
        one = TheStatement(
            entries=entries, opening=self.balance, opened_on=self.day - timedelta(days=1), closed_on=self.day,
            account=f"37040044/{self.account.account_number}", currency=self.currency,
            number=f"{self.statements:05d}/001",
        )  # fmt: skip
        self.balance, self.day = one.closing, self.day + timedelta(days=1)
        return one

    async def bring(self, content: bytes, **how: Any) -> list[Imported]:
        statements = read_statements(content, file="statement.sta", **how)
        done = await import_statements(
            content,
            statements,
            file="statement.sta",
            accounts=[self.account],
            desk=self.desk,
            clock=self.clock,
            by="ada",
        )
        self.brought.append((content, how))
        return done

    async def receive(self, *entries: Told) -> list[str]:
        """Import the next statement with these entries and return the entries' ids, in their order."""
        content = write_mt940(self.statement(*entries))
        (done,) = await self.bring(content)
        assert done.is_new
        assert done.gap == 0
        # Run again: nothing new.
        (again,) = await self.bring(content)
        assert (again.is_new, again.new_entries) == (False, ())
        rows = await self.rows(
            "SELECT entry_id FROM bank_statement_entries WHERE statement_id = %s ORDER BY position", done.statement_id
        )
        return [row["entry_id"] for row in rows]

    async def proposals(self, entry: str, tolerance: str = "0") -> Proposed:
        found = await propose_matches(desk=self.desk, tolerances={self.currency: D(tolerance)}, only={entry})
        assert len(found) == 1
        return found[0]

    async def confirm(
        self, entry: str, *numbers: str | tuple[str, str], tolerance: str = "0", by: str = "ada", **wish: Any
    ) -> Confirmed:
        wanted = [Wanted(one) if isinstance(one, str) else Wanted(one[0], D(one[1])) for one in numbers]
        rules = Rules(D(tolerance))
        done = await confirm_match(
            entry, Wish(tuple(wanted), **wish), desk=self.desk, clock=self.clock, by=by, rules=rules
        )
        await self.deliver()
        return done

    async def give_back(self, entry: str, original: str, **how: Any) -> Confirmed:
        done = await confirm_return(entry, original, desk=self.desk, clock=self.clock, by="ada", **how)
        await self.deliver()
        return done

    async def deliver(self) -> None:
        """Do what invoicing does with what payments announced, twice: messages may come again."""
        settlements = PostgresSettlements(self.pool)
        for _ in range(2):
            rows = await self.rows(
                "SELECT topic, payload FROM outbox WHERE key = ANY(%s)"
                " AND topic IN ('payment.settled', 'payment.refunded') ORDER BY outbox_id",
                self.tenants,
            )
            for row in rows:
                if row["topic"] == "payment.settled":
                    settled = decode_message(bytes(row["payload"]), PaymentSettled)
                    await settle_invoice(settled, settlements=settlements, clock=self.clock)
                else:
                    refunded = decode_message(bytes(row["payload"]), PaymentRefunded)
                    await record_refund(refunded, settlements=settlements, clock=self.clock)

    async def nothing_new(self) -> None:
        """Import every statement and deliver every message again, and hold that not one row says anything else."""
        await self.deliver()
        before = await self._all()
        for content, how in list(self.brought):
            assert [one.new_entries for one in await self.bring(content, **how)] == [()] * len(
                read_statements(content, file="statement.sta", **how)
            )
        await self.deliver()
        assert await self._all() == before

    async def _all(self) -> list[list[dict[str, Any]]]:
        own = "(SELECT invoice_id FROM invoices WHERE tenant_id = ANY(%s))"
        entries = "(SELECT entry_id FROM bank_entries WHERE account_id = %s)"
        account, tenants = self.account.account_id, self.tenants
        return [
            await self.rows("SELECT * FROM bank_entries WHERE account_id = %s ORDER BY entry_id", account),
            await self.rows(f"SELECT * FROM bank_allocations WHERE entry_id IN {entries} ORDER BY 1", account),
            await self.rows("SELECT * FROM invoices WHERE tenant_id = ANY(%s) ORDER BY invoice_id", tenants),
            await self.rows(f"SELECT * FROM payments WHERE invoice_id IN {own} ORDER BY payment_id", tenants),
            await self.rows(f"SELECT * FROM settlements WHERE invoice_id IN {own} ORDER BY payment_id", tenants),
            await self.rows("SELECT * FROM ledger_postings WHERE tenant_id = ANY(%s) ORDER BY entry_id, 2, 3", tenants),
            await self.rows("SELECT * FROM outbox WHERE key = ANY(%s) ORDER BY outbox_id", tenants),
        ]

    async def invoice_state(self, number: str) -> tuple[str, Decimal, Decimal]:
        """Return an invoice's status, what was paid and what is open."""
        (row,) = await self.rows(
            "SELECT status, amount_paid, amount_due - amount_paid AS open FROM invoices WHERE number = %s", number
        )
        return row["status"], row["amount_paid"], row["open"]

    async def payments(self, number: str) -> list[tuple[int, str, str, Decimal]]:
        rows = await self.rows(
            "SELECT attempt, provider, payments.status, payments.amount FROM payments JOIN invoices USING (invoice_id)"
            " WHERE number = %s ORDER BY attempt",
            number,
        )
        return [(row["attempt"], row["provider"], row["status"], row["amount"]) for row in rows]

    async def entry_state(self, entry: str) -> tuple[str, Decimal]:
        (row,) = await self.rows("SELECT status, allocated FROM bank_entries WHERE entry_id = %s", entry)
        return row["status"], row["allocated"]

    async def ledger(self, tenant: str | None = None) -> dict[str, Decimal]:
        """Return debits less credits of this scene by account: of a tenant, or of money that is nobody's yet."""
        rows = await self.rows(
            "SELECT account, sum(debit) - sum(credit) AS net FROM ledger_postings WHERE tenant_id = %s"
            " GROUP BY account",
            tenant,
        )
        return {row["account"]: row["net"] for row in rows if row["net"]}

    async def check_books(self) -> None:
        """What must hold after every story: nothing given out beyond what came, and the ledger says what is left."""
        rows = await self.rows(
            "SELECT entry.entry_id, abs(entry.amount) AS amount, entry.allocated, coalesce(sum(a.amount), 0) AS given"
            " FROM bank_entries entry LEFT JOIN bank_allocations a USING (entry_id) WHERE account_id = %s"
            " GROUP BY entry.entry_id",
            self.account.account_id,
        )
        assert all(row["allocated"] == row["given"] <= row["amount"] for row in rows)
        over = await self.rows(
            "SELECT number FROM invoices WHERE tenant_id = ANY(%s) AND amount_paid > amount_due", self.tenants
        )
        assert over == []
        async with self.pool.connection() as connection:
            balances = await PostgresLedger(connection).balances()
        assert all(
            sum(net for (_, currency), net in balances.items() if currency == one) == 0
            for one in {currency for _, currency in balances}
        )
        # What is on the account for nobody yet: what is not allocated, and what is held.
        unallocated = sum(
            (-net for (account, currency), net in balances.items() if account.name == "unallocated"), D(0)
        )
        (waiting,) = await self.rows(
            "SELECT coalesce(sum(amount - allocated), 0) AS open FROM bank_entries WHERE amount > 0"
        )
        (held,) = await self.rows("SELECT coalesce(sum(amount), 0) AS held FROM bank_allocations WHERE kind = 'held'")
        (gone,) = await self.rows(
            "SELECT coalesce(sum(back.amount), 0) AS gone FROM bank_allocations back JOIN bank_allocations was"
            " ON was.allocation_id = back.returned_id WHERE was.kind = 'held'"
        )
        assert unallocated == waiting["open"] + held["held"] - gone["gone"]

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments)).fetchall()
