"""The life of documents on memory and on PostgreSQL alike: the same verbs, the same sums; who comes second waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.errors import ConflictError, InvalidInputError
from core.messages import InvoicingRequest
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_issued import PostgresDrafts
from invoicing.adapters.postgres_numbers import PostgresNumbers
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.check_numbers import NumberRegister, check_numbers
from invoicing.credit_invoice import CreditWish, credit_invoice
from invoicing.domain.invoice import Invoice
from invoicing.domain.standing import Standing
from invoicing.finalize_drafts import finalize_drafts
from invoicing.invoice_period import invoice_period
from invoicing.issue_one_time import OneTimeItem, issue_one_time
from invoicing.life_ports import DraftRegister
from invoicing.open_invoice import InvoiceStateError, PaymentUnderWayError
from invoicing.ports import Books
from invoicing.reissue_invoice import reissue_invoice
from invoicing.terms import Terms
from invoicing.void_invoice import void_invoice
from invoicing.write_off_invoice import write_off_invoice
from ledger.adapters.postgres import PostgresLedger
from ledger.domain.entry import AccountKind
from rating.domain.credit import CreditGrant, CreditKind
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.commands import add_tenant
from subscriptions.create_subscription import NewSubscription, create_subscription
from subscriptions.domain.tenant import Tenant
from subscriptions.record_changes import Asked
from tests.invoicing.memory import MemoryBooks, MemoryUsage
from tests.invoicing.scene import TERMS, Scene, at

KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]
# What only PostgreSQL can show.
ON_POSTGRESQL = pytest.mark.parametrize("engines", [pytest.param("real", marks=pytest.mark.integration)], indirect=True)
ZERO = Decimal(0)


@dataclass
class Life:
    """One tenant on Lite (99.00 a month, CPU at 0.05), and the verbs."""

    books: Books
    drafts: DraftRegister
    numbers: NumberRegister
    tenant_id: str
    usage: MemoryUsage
    clock: ManualClock
    pool: Pool | None = None
    terms: Terms = TERMS

    def used(self, cpu: int) -> None:
        self.usage.hours[self.tenant_id] = []
        self.usage.events[self.tenant_id] = []
        self.usage.add(self.tenant_id, "cpu", cpu, at("2026-10-10T10:00"))

    async def bill(self) -> list[Invoice]:
        request = InvoicingRequest(tenant_id=self.tenant_id, period="2026-10", run_id="run", requested_at="")
        return await invoice_period(request, books=self.books, usage=self.usage, terms=self.terms, clock=self.clock)

    async def credit(self, number: str, amount: str, key: str) -> Standing:
        return await credit_invoice(
            number, CreditWish(Decimal(amount)), reason="sorry", key=f"{self.tenant_id}-{key}", books=self.books,
            terms=self.terms, clock=self.clock,
        )  # fmt: skip

    async def void(self, number: str) -> Standing:
        return await void_invoice(number, reason="wrong", books=self.books, clock=self.clock)

    async def reissue(self, number: str) -> list[Standing]:
        return await reissue_invoice(
            number, reason="address", books=self.books, usage=self.usage, terms=self.terms, clock=self.clock
        )

    async def standing(self, number: str) -> Standing:
        async with self.books.open_account(self.tenant_id) as account:
            assert account is not None
            found = await account.issued.lock(number)
        assert found is not None
        return found

    async def grant(self, amount: str, kind: CreditKind = CreditKind.PAID) -> None:
        grant = CreditGrant(
            f"cred_{uuid4().hex[:10]}", self.tenant_id, kind, Decimal(amount), "USD", at("2026-10-01"), at("2026-10-01")
        )
        async with self.books.open_account(self.tenant_id) as account:
            assert account is not None
            assert await account.ledger.add_grant(grant)

    async def balances(self) -> dict[CreditKind, Decimal]:
        async with self.books.open_account(self.tenant_id) as account:
            assert account is not None
            credits = await account.ledger.credits(self.tenant_id)
        found: dict[CreditKind, Decimal] = {}
        for credit in credits:
            found[credit.grant.kind] = found.get(credit.grant.kind, ZERO) + credit.balance
        return found

    async def nothing_new(self) -> None:
        assert await self.bill() == []
        assert (await check_numbers(self.numbers)).faults == ()
        await self.check_receivable()

    async def check_receivable(self) -> None:
        """Hold that the ledger's receivable is what is open; the one in memory has no entries of credits."""
        if self.pool is None:
            return
        async with self.pool.connection() as connection:
            balances = await PostgresLedger(connection).balances(tenant_id=self.tenant_id)
            found = await connection.execute(
                "SELECT coalesce(sum(amount_due - amount_paid) FILTER (WHERE status IN ('finalized', 'overdue')), 0)"
                " AS open FROM invoices WHERE tenant_id = %s",
                (self.tenant_id,),
            )
            row = await found.fetchone()
        assert row is not None
        receivable = {account.kind: net for (account, _), net in balances.items()}
        assert receivable.get(AccountKind.RECEIVABLE, ZERO) == row["open"]

    async def pay(self, number: str, amount: str) -> None:
        """Let money be on an invoice."""
        standing = await self.standing(number)
        if self.pool is None:
            assert isinstance(self.books, MemoryBooks)
            self.books.state.issued.pay(standing.invoice_id, Decimal(amount))
            return
        async with self.pool.connection() as connection:
            await connection.execute(
                "UPDATE invoices SET amount_paid = %(paid)s, paid_at = CASE WHEN amount_due = %(paid)s THEN now() END,"
                " status = CASE WHEN amount_due = %(paid)s THEN 'paid' ELSE status END WHERE invoice_id = %(invoice)s",
                {"paid": Decimal(amount), "invoice": standing.invoice_id},
            )


@pytest.fixture(params=KINDS)
def engines(request: pytest.FixtureRequest) -> Settings | None:
    return request.getfixturevalue("settings") if request.param == "real" else None


@pytest.fixture
async def life(engines: Settings | None) -> AsyncIterator[Life]:
    tenant_id = f"life-{uuid4().hex[:10]}"
    usage, clock = MemoryUsage(), ManualClock(at("2026-11-03"))
    if engines is None:
        scene = Scene()
        scene.on("lite", tenant_id, started="2026-10-01")
        yield Life(scene.books, scene.books, scene.books, tenant_id, usage, clock)
        return
    await apply_files(engines, shipped_files())
    tenant = Tenant(tenant_id, tenant_id.title(), "billing@example.com", "DE", "USD", "1 Road\nTown")
    await add_tenant(engines, tenant, "lite", overrides={}, started_at=at("2026-10-01"))
    async with create_pool(engines, max_size=6) as pool:
        yield Life(PostgresBooks(pool), PostgresDrafts(pool), PostgresNumbers(pool), tenant_id, usage, clock, pool)


def later(life: Life, text: str) -> datetime:
    life.clock.travel_to(text)
    return life.clock.now()


async def test_less_than_was_billed_becomes_a_credit_note(life: Life) -> None:
    life.used(1_000)
    (invoice,) = await life.bill()
    assert str(invoice.total) == "149.00"  # 99 + 1,000 × 0.05
    life.used(400)
    later(life, "2026-11-04")
    (note,) = await life.bill()
    assert str(note.total) == "-30.00"
    standing = await life.standing(invoice.number)
    assert (str(standing.amount_due), standing.status) == ("119.00", "finalized")
    note_standing = await life.standing(note.number)
    assert (str(note_standing.amount_due), note_standing.status, note_standing.total) == ("0", "paid", note.total)
    await life.nothing_new()


async def test_money_and_drawn_credit_come_back_as_what_they_were(life: Life) -> None:
    await life.grant("9.00", CreditKind.PROMOTIONAL)
    (invoice,) = await life.bill()
    await life.pay(invoice.number, "50.00")
    # 99.00 = 9.00 drawn + 50.00 paid + 40.00 open
    first = await life.credit(invoice.number, "60.00", "a")
    assert (await life.standing(invoice.number)).status == "paid"
    assert await life.balances() == {CreditKind.PROMOTIONAL: ZERO, CreditKind.PAID: Decimal("20.00")}
    assert await life.credit(invoice.number, "60.00", "a") == first
    await life.credit(invoice.number, "39.00", "b")
    assert await life.balances() == {CreditKind.PROMOTIONAL: Decimal("9.00"), CreditKind.PAID: Decimal("50.00")}
    with pytest.raises(InvalidInputError, match="nothing_left"):
        await life.credit(invoice.number, "0.01", "c")
    assert (await life.standing(invoice.number)).creditable == 0
    assert await life.bill() == []


async def test_of_many_at_once_no_more_is_given_back_than_was_billed(life: Life) -> None:
    (invoice,) = await life.bill()
    done = await asyncio.gather(
        *(life.credit(invoice.number, "30.00", str(number)) for number in range(5)), return_exceptions=True
    )
    given = [one for one in done if isinstance(one, Standing)]
    refused = [one for one in done if isinstance(one, InvalidInputError)]
    assert (len(given), len(refused)) == (3, 2)
    assert len({one.number for one in given}) == 3
    assert str((await life.standing(invoice.number)).amount_due) == "9.00"
    again = await asyncio.gather(*(life.credit(invoice.number, "9.00", "same") for _ in range(3)))
    assert len({one.invoice_id for one in again}) == 1
    await life.nothing_new()


async def test_void_returns_what_was_drawn_and_the_number_stays_used(life: Life) -> None:
    await life.grant("10.00")
    (invoice,) = await life.bill()
    voided = await asyncio.gather(*(life.void(invoice.number) for _ in range(3)))
    assert {one.status for one in voided} == {"void"}
    assert await life.balances() == {CreditKind.PAID: Decimal("10.00")}
    later(life, "2026-11-04")
    (again,) = await life.bill()
    assert (str(again.amount_due), again.number != invoice.number) == ("89.00", True)
    assert all(line.corrects_invoice is None for line in again.draft.lines)
    await life.nothing_new()


async def test_a_paid_invoice_is_reissued_in_one_go(life: Life) -> None:
    (invoice,) = await life.bill()
    await life.pay(invoice.number, "99.00")
    life.used(100)
    later(life, "2026-11-04")
    note, anew = await life.reissue(invoice.number)
    assert (str(note.total), str(anew.total), str(anew.credits_applied)) == ("-99.00", "104.00", "99.00")
    assert anew.replaces == invoice.draft.invoice_id
    assert await life.reissue(invoice.number) == [note, anew]
    assert await life.bill() == []


async def test_what_is_void_paid_or_written_off_is_not_changed_otherwise(life: Life) -> None:
    (invoice,) = await life.bill()
    done = await write_off_invoice(invoice.number, reason="gone", books=life.books, clock=life.clock)
    assert done.status == "uncollectible"
    with pytest.raises(InvoiceStateError):
        await life.void(invoice.number)
    note = await life.credit(invoice.number, "9.00", "late")
    assert str(note.total) == "-9.00"
    assert (await life.standing(invoice.number)).status == "uncollectible"
    await life.nothing_new()


async def test_a_draft_waits_and_is_made_anew_at_its_end(life: Life) -> None:
    life.terms = Terms(TERMS.seller, 15, grace_hours=24)
    life.used(100)
    assert await life.bill() == []
    (draft,) = await life.drafts.drafts(due_at=None, tenant_id=life.tenant_id)
    assert (draft.status, str(draft.total), draft.finalize_at) == ("draft", "104.00", at("2026-11-04"))
    life.used(200)
    assert await life.bill() == []
    (draft,) = await life.drafts.drafts(due_at=None, tenant_id=life.tenant_id)
    assert str(draft.total) == "109.00"
    with pytest.raises(ConflictError, match="draft"):
        await life.void(draft.invoice_id)
    assert await life.drafts.drafts(due_at=at("2026-11-03T23:59"), tenant_id=life.tenant_id) == []
    later(life, "2026-11-04")
    life.used(300)

    async def finalize() -> list[str]:
        done = await finalize_drafts(
            drafts=life.drafts, books=life.books, usage=life.usage, terms=life.terms, clock=life.clock,
            tenant_id=life.tenant_id,
        )  # fmt: skip
        return [str(one.total) for one in done.issued]

    both = await asyncio.gather(finalize(), finalize())
    assert sorted(both) == [[], ["114.00"]], "of two that finalize, one does"
    assert await life.drafts.drafts(due_at=None, tenant_id=life.tenant_id) == []
    await life.nothing_new()


async def test_one_time_items_are_invoiced_once_for_a_key(life: Life) -> None:
    items = [OneTimeItem("Setup", Decimal("250.00"))]

    async def sell() -> Standing:
        return await issue_one_time(
            life.tenant_id, items, key="setup", books=life.books, terms=life.terms, clock=life.clock
        )

    sold = await asyncio.gather(*(sell() for _ in range(3)))
    assert len({one.invoice_id for one in sold}) == 1
    assert (sold[0].subscription_id, str(sold[0].total)) == (None, "250.00")
    await life.credit(str(sold[0].number), "50.00", "x")
    assert str((await life.standing(str(sold[0].number))).amount_due) == "200.00"
    (invoice,) = await life.bill()
    assert str(invoice.total) == "99.00"
    await life.nothing_new()


async def test_numbers_have_no_gap_whatever_is_interrupted(life: Life) -> None:
    (invoice,) = await life.bill()

    async def fail() -> None:
        async with life.books.open_account(life.tenant_id) as account:
            assert account is not None
            await account.take_number("MB-2026")
            await account.take_number("MB-CN-2026")
            raise RuntimeError("the power went out")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="power"):
            await fail()
    tasks = [asyncio.create_task(life.credit(invoice.number, "1.00", str(number))) for number in range(8)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    given = [one for one in done if isinstance(one, Standing)]
    assert len(given) >= 4
    assert (await check_numbers(life.numbers)).faults == ()
    await life.nothing_new()


@ON_POSTGRESQL
async def test_two_subscriptions_on_one_invoice(engines: Settings, life: Life) -> None:
    assert life.pool is not None
    async with life.pool.connection() as connection, connection.transaction():
        beside = await create_subscription(
            NewSubscription(life.tenant_id, "airgapped", at("2026-10-01")),
            asked=Asked("desk", allow_backdated=True),
            store=PostgresSubscriptionStore(connection),
            clock=life.clock,
        )
    assert await PostgresRegister(life.pool).consolidate(life.tenant_id, is_on=True)
    life.used(100)
    (invoice,) = await life.bill()
    assert str(invoice.total) == "60104.00"  # 50,000 + 10,000 + 99 + 100 × 0.05
    async with life.books.open_account(life.tenant_id) as account:
        assert account is not None
        lines = await account.issued.lines(invoice.draft.invoice_id)
    both = {line.subscription_id or invoice.draft.subscription_id for line in lines}
    assert beside.subscription.subscription_id in both
    assert len(both) == 2
    await life.nothing_new()
    life.used(40)
    later(life, "2026-11-04")
    (note,) = await life.bill()
    assert str(note.total) == "-3.00"
    taken, anew = await life.reissue(invoice.number)
    assert (str(taken.total), str(anew.total)) == ("-60101.00", "60101.00")
    await life.nothing_new()


@ON_POSTGRESQL
async def test_tenants_invoiced_at_once_share_a_series_without_gaps(engines: Settings, life: Life) -> None:
    lives = [life]
    for _ in range(4):
        tenant_id = f"life-{uuid4().hex[:10]}"
        tenant = Tenant(tenant_id, tenant_id.title(), "billing@example.com", "DE", "USD", "1 Road\nTown")
        await add_tenant(engines, tenant, "lite", overrides={}, started_at=at("2026-10-01"))
        lives.append(replace(life, tenant_id=tenant_id))
    billed = [asyncio.create_task(one.bill()) for one in lives for _ in range(3)]
    billed[3].cancel()
    done = [one for one in await asyncio.gather(*billed, return_exceptions=True) if isinstance(one, list)]
    numbers = [invoice.number for one in done for invoice in one]
    assert len(set(numbers)) == len(numbers) == 5
    assert (await check_numbers(life.numbers)).faults == ()


@ON_POSTGRESQL
async def test_a_payment_under_way_is_seen(engines: Settings, life: Life) -> None:
    (invoice,) = await life.bill()
    assert life.pool is not None
    async with life.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status,"
            " created_at, updated_at) VALUES (%s, %s, %s, 1, 'stripe', 99, 'USD', 'processing', now(), now())",
            (f"pay_{life.tenant_id}", invoice.draft.invoice_id, life.tenant_id),
        )
    with pytest.raises(PaymentUnderWayError):
        await life.void(invoice.number)
    await life.credit(invoice.number, "10.00", "meanwhile")
    assert (await life.standing(invoice.number)).amount_due == Decimal("99.00")
    assert await life.balances() == {CreditKind.PAID: Decimal("10.00")}
