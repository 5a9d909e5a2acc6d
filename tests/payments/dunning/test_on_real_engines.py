"""Dunning on PostgreSQL, with Stripe's and the mail server's stand-ins: stories, many schedulers at once, outages."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from core.clock import ManualClock
from core.errors import ConflictError, InvalidInputError, NotFoundError
from core.messages import InvoiceFinalized, PaymentDisputed, PaymentSettled, decode_message
from core.money import Money
from invoicing import overdue_worker
from invoicing.adapters.postgres_overdue import PostgresDueInvoices
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.mark_overdue import mark_overdue
from invoicing.record_money_back import record_dispute
from invoicing.settle_invoice import settle_invoice
from payments.domain.payment import Payment, PaymentStatus, payment_id_of
from payments.dunning import worker
from payments.dunning.adapters.charge_again import ChargeAgainAtProviders
from payments.dunning.adapters.postgres_dunning import PostgresDunning
from payments.dunning.adapters.postgres_mails import PostgresMailQueue
from payments.dunning.adapters.smtp_server import SmtpServer
from payments.dunning.commands import app
from payments.dunning.domain.case import UnpaidInvoice
from payments.dunning.read_schedules import load_schedules
from payments.dunning.run_dunning import run_dunning
from payments.dunning.send_reminders import send_next_reminder
from runtime.postgres import Pool
from runtime.settings import Settings
from tests.payments.desk import Desk
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
SCHEDULES = load_schedules(None)
TODAY = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
SENDER = "Meterbook <billing@meterbook.example>"


@pytest.fixture(autouse=True)
async def nothing_open(pool: Pool) -> None:
    """What other tests left open is not dunned here."""
    async with pool.connection() as connection:
        await connection.execute("UPDATE invoices SET status = 'void' WHERE status IN ('finalized', 'overdue')")
        await connection.execute("UPDATE dunning_cases SET is_open = false")
        await connection.execute("UPDATE dunning_mails SET status = 'dropped' WHERE status = 'pending'")


async def never(invoice: UnpaidInvoice, retry_of: str) -> Payment | None:
    raise AssertionError(f"{invoice.invoice_id} is charged")


async def look(pool: Pool, clock: ManualClock, charge_again: Any = never) -> None:
    """Look until nothing is due any more."""
    book = PostgresDunning(pool)
    while await run_dunning(book=book, charge_again=charge_again, schedules=SCHEDULES, clock=clock):
        pass


async def rows(pool: Pool, query: str, *arguments: Any) -> list[dict[str, Any]]:
    async with pool.connection() as connection:
        return await (await connection.execute(query.encode(), arguments)).fetchall()


async def steps(pool: Pool, invoice: InvoiceFinalized) -> list[str]:
    found = await rows(
        pool, "SELECT name, outcome FROM dunning_steps WHERE invoice_id = %s ORDER BY done_at, planned_at",
        invoice.invoice_id,
    )  # fmt: skip
    return [one["name"] + ("" if one["outcome"] == "done" else f" {one['outcome']}") for one in found]


async def add(desk: Desk, tenant: str, due: datetime, amount: str = "119.00", sequence: int = 1) -> InvoiceFinalized:
    invoice = await desk.books.add_invoice(tenant, amount, sequence=sequence)
    async with desk.books.pool.connection() as connection:
        await connection.execute(
            "UPDATE invoices SET due_at = %s, issued_at = %s WHERE invoice_id = %s",
            (due, due - timedelta(days=15), invoice.invoice_id),
        )
    return invoice


async def outbox(pool: Pool, topic: str, payment_id: str) -> bytes:
    query = "SELECT payload FROM outbox WHERE topic = %s AND convert_from(payload, 'UTF8')::jsonb ->> 'payment_id' = %s"
    (row,) = await rows(pool, query, topic, payment_id)
    return bytes(row["payload"])


async def test_declined_twice_then_paid_then_charged_back(desk: Desk, pool: Pool, standins: Standins) -> None:
    clock, settlements = desk.clock, PostgresSettlements(pool)
    charge_again = ChargeAgainAtProviders(desk.store, {"stripe": desk.provider}, clock)
    tenant = await desk.books.add_tenant("pm_card_chargeCustomerFail")
    async with pool.connection() as connection:
        await connection.execute("UPDATE payment_methods SET created_at = %s", (clock.now() - timedelta(days=9),))
    invoice = await add(desk, tenant, clock.now() + timedelta(days=15))
    declined = await desk.charge(invoice)
    assert declined is not None
    assert declined.status is PaymentStatus.FAILED
    start = clock.now()
    # Half a day later it is past the hour at which mails of that day go out, whenever this test runs.
    clock.travel_to(start + timedelta(hours=12))
    await look(pool, clock, charge_again)
    assert await steps(pool, invoice) == ["payment_failed-1"]
    clock.travel_to(start + timedelta(days=3, hours=12))
    await look(pool, clock, charge_again)
    assert (await steps(pool, invoice))[1:] == ["retry-1 failed"]
    [method] = await rows(pool, "SELECT method_reference FROM payment_methods WHERE tenant_id = %s", tenant)
    standins.change_card(method["method_reference"], "pm_card_visa")
    clock.travel_to(start + timedelta(days=7, hours=12))
    await look(pool, clock, charge_again)
    assert (await steps(pool, invoice))[2:] == ["retry-2 processing"]
    await desk.catch_up()
    third = payment_id_of(invoice.invoice_id, 3)
    message = decode_message(await outbox(pool, "payment.settled", third), PaymentSettled)
    assert message.amount == "119.00"
    assert await settle_invoice(message, settlements=settlements, clock=clock)
    await look(pool, clock, charge_again)
    charged = [(charge["amount"], charge["currency"]) for charge in standins.ledger()]
    assert charged == [(11900, "usd")], "one charge per amount due"
    history = await rows(
        pool, "SELECT stage_after FROM dunning_account_changes WHERE tenant_id = %s ORDER BY change_id", tenant
    )
    assert [row["stage_after"] for row in history] == ["grace", "current"]
    # The payer's bank takes it back: the money is disputed, the invoice stays paid, nobody is reminded or charged.
    payment = await desk.payment(third)
    assert payment.provider_reference is not None
    standins.open_dispute(payment.provider_reference)
    async with pool.connection() as connection:
        # The stand-in's clock is the machine's: its events are older than what was swept at this test's time.
        await connection.execute("DELETE FROM provider_sweeps")
    await desk.catch_up()
    disputed = decode_message(await outbox(pool, "payment.disputed", third), PaymentDisputed)
    assert await record_dispute(disputed, settlements=settlements, clock=clock)
    clock.advance(timedelta(days=90))
    await look(pool, clock, charge_again)
    assert len(await steps(pool, invoice)) == 3
    balances = await rows(
        pool, "SELECT account, sum(debit) - sum(credit) AS net FROM ledger_postings WHERE tenant_id = %s GROUP BY 1",
        tenant,
    )  # fmt: skip
    assert {row["account"]: row["net"] for row in balances} == {
        "receivable": Decimal("-119.00"),  # this test's invoice was never posted, its payment was
        "cash:stripe": Decimal("0.00"),  # 119.00 - 119.00
        "disputed": Decimal("119.00"),
    }


class CountingProvider:
    """Answers slowly, so that others look meanwhile."""

    def __init__(self, pool: Pool, clock: ManualClock) -> None:
        self.pool, self.clock, self.asked = pool, clock, list[tuple[str, str]]()

    async def __call__(self, invoice: UnpaidInvoice, retry_of: str) -> Payment | None:
        self.asked.append((invoice.invoice_id, retry_of))
        await asyncio.sleep(0.02)
        amount = Money(invoice.amount_open, invoice.currency)
        number = invoice.charges[-1].attempt + 1
        payment = Payment(
            payment_id_of(invoice.invoice_id, number), invoice.invoice_id, invoice.tenant_id, number, "stripe", amount,
            self.clock.now(), PaymentStatus.FAILED,
        )  # fmt: skip
        await add_failure(self.pool, payment, self.clock.now())
        return payment


async def add_failure(pool: Pool, of: Payment, now: datetime) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status,"
            " failure_code, created_at, updated_at)"
            " VALUES (%s, %s, %s, %s, 'stripe', %s, 'USD', 'failed', 'insufficient_funds', %s, %s)",
            (of.payment_id, of.invoice_id, of.tenant_id, of.attempt, of.amount.amount, now, now),
        )  # fmt: skip


async def test_six_schedulers_at_once_take_each_step_once(desk: Desk, pool: Pool) -> None:
    clock = ManualClock(TODAY)
    tenants = [await desk.books.add_tenant() for _ in range(2)]
    invoices = [await add(desk, tenants[n % 2], TODAY + timedelta(days=15), sequence=n + 1) for n in range(10)]
    for invoice in invoices:
        first = Payment(
            payment_id_of(invoice.invoice_id, 1), invoice.invoice_id, invoice.tenant_id, 1, "stripe",
            Money(Decimal("119.00"), "USD"), TODAY,
        )  # fmt: skip
        await add_failure(pool, first, TODAY)
    async with pool.connection() as connection:
        await connection.execute("UPDATE payment_methods SET created_at = %s", (TODAY - timedelta(days=9),))
    provider = CountingProvider(pool, clock)
    for _ in range(45):
        clock.advance(timedelta(days=1))
        await asyncio.gather(*(look(pool, clock, provider) for _ in range(6)))
    expected = [
        "payment_failed-1", "retry-1 failed", "retry-2 failed", "retry-3 failed",
        "reminder-1", "reminder-2", "final_notice-1", "suspension-1",
    ]  # fmt: skip
    for invoice in invoices:
        assert await steps(pool, invoice) == expected
    assert len(provider.asked) == len(set(provider.asked)) == 30  # 10 invoices x 3 retries
    mails = await rows(pool, "SELECT invoice_id FROM dunning_mails WHERE tenant_id = ANY(%s)", tenants)
    assert len(mails) == 50  # 10 x 5 mails
    for tenant in tenants:
        told = await rows(
            pool, "SELECT convert_from(payload, 'UTF8')::jsonb ->> 'event' AS event FROM outbox"
            " WHERE topic = 'account.standing' AND key = %s", tenant,
        )  # fmt: skip
        assert [row["event"] for row in told] == ["account.suspended"], "five invoices suspend it once"


async def send_all(pool: Pool, url: str, clock: ManualClock) -> int:
    """Try all that is due, by four senders at once."""
    server, queue = SmtpServer(url, timeout_seconds=2), PostgresMailQueue(pool)

    async def one() -> int:
        tried = 0
        while await send_next_reminder(queue=queue, server=server, sender=SENDER, clock=clock):
            tried += 1
        return tried

    return sum(await asyncio.gather(*(one() for _ in range(4))))


async def by_transfer(desk: Desk, language: str = "de", due: datetime = TODAY) -> InvoiceFinalized:
    tenant = await desk.books.add_tenant(None)
    async with desk.books.pool.connection() as connection:
        await connection.execute("UPDATE tenants SET language = %s WHERE tenant_id = %s", (language, tenant))
    return await add(desk, tenant, due)


async def test_a_reminder_outlives_an_outage_of_mail_and_comes_once(desk: Desk, pool: Pool, standins: Standins) -> None:
    clock = ManualClock(TODAY + timedelta(days=1))
    invoice = await by_transfer(desk)
    await look(pool, clock)
    # It was never looked at before: the note that it is due soon and the reminder do not come in one minute.
    assert await steps(pool, invoice) == ["upcoming-1"]
    assert await send_all(pool, "smtp://127.0.0.1:1", clock) == 1
    standins.fail_smtp("refuse", code=451, stage="rcpt")
    for _ in range(4):
        clock.advance(timedelta(minutes=10))
        await send_all(pool, standins.settings()["METERBOOK_SMTP_URL"], clock)
    (mail,) = standins.mails()
    assert mail["envelope_to"] == ["books@acme.invalid"]
    assert mail["message_id"].endswith("@meterbook.example>")
    assert mail["subject"].endswith("ist am 4. November 2026 fällig")
    assert "119,00" in mail["text"]
    assert "119,00" in mail["html"]
    (kept,) = await rows(pool, "SELECT status, attempts FROM dunning_mails WHERE invoice_id = %s", invoice.invoice_id)
    assert kept == {"status": "sent", "attempts": 3}


async def test_a_connection_cut_after_the_mail_sends_the_same_message_id(
    desk: Desk, pool: Pool, standins: Standins
) -> None:
    clock = ManualClock(TODAY + timedelta(days=1))
    await by_transfer(desk, "es")
    await look(pool, clock)
    standins.fail_smtp("cut_after")
    for _ in range(3):
        await send_all(pool, standins.settings()["METERBOOK_SMTP_URL"], clock)
        clock.advance(timedelta(minutes=10))
    mails = standins.mails()
    assert len(mails) == 2, "the server had it, its answer was lost"
    assert len({mail["message_id"] for mail in mails}) == 1
    assert len({(mail["text"], mail["subject"]) for mail in mails}) == 1


async def test_what_was_paid_meanwhile_is_not_reminded_of(desk: Desk, pool: Pool, standins: Standins) -> None:
    clock = ManualClock(TODAY + timedelta(days=1))
    invoice = await by_transfer(desk, "pt")
    await look(pool, clock)
    assert await send_all(pool, "smtp://127.0.0.1:1", clock) == 1
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE invoices SET status = 'paid', amount_paid = total, paid_at = %s WHERE invoice_id = %s",
            (clock.now(), invoice.invoice_id),
        )
    clock.advance(timedelta(hours=1))
    await send_all(pool, standins.settings()["METERBOOK_SMTP_URL"], clock)
    assert standins.mails() == []
    (kept,) = await rows(pool, "SELECT status FROM dunning_mails WHERE invoice_id = %s", invoice.invoice_id)
    assert kept["status"] == "dropped"


async def test_an_address_that_is_refused_for_good_is_given_up_with_its_reason(
    desk: Desk, pool: Pool, standins: Standins
) -> None:
    clock = ManualClock(TODAY + timedelta(days=1))
    invoice = await by_transfer(desk, "en")
    await look(pool, clock)
    standins.fail_smtp("refuse", count=100, code=550, stage="rcpt")
    for _ in range(40):
        clock.advance(timedelta(minutes=10))
        await send_all(pool, standins.settings()["METERBOOK_SMTP_URL"], clock)
    (kept,) = await rows(
        pool, "SELECT status, attempts, last_error FROM dunning_mails WHERE invoice_id = %s", invoice.invoice_id
    )
    assert kept["status"] == "refused"
    assert kept["attempts"] == 12
    assert "550" in kept["last_error"]


async def command(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def test_people_pause_resume_and_see_every_step(
    desk: Desk, pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments.dunning.commands.load_settings", lambda: settings)
    # Commands have the machine's clock.
    clock = ManualClock(datetime.now(UTC))
    invoice = await by_transfer(desk, due=clock.now() - timedelta(days=1))
    tenant = invoice.tenant_id
    nothing = await command("status", tenant)
    assert "current" in nothing.stdout
    await look(pool, clock)
    paused = await command("pause", tenant, "--reason", "they called")
    assert "is paused" in paused.stdout
    assert isinstance((await command("pause", tenant)).exception, ConflictError)
    clock.advance(timedelta(days=12))
    await look(pool, clock)
    assert await steps(pool, invoice) == ["upcoming-1"]
    shown = json.loads((await command("status", tenant, "--json")).stdout)
    assert (shown["stage"], shown["pause_reason"]) == ("past_due", "they called")
    assert [one["name"] for one in shown["steps"]] == ["upcoming-1"]
    assert [one["step"] for one in shown["upcoming"]] == ["reminder-1", "reminder-2", "final_notice-1"]
    assert [one["kind"] for one in shown["history"]] == ["stage", "paused", "stage"]
    assert "goes on" in (await command("resume", tenant)).stdout
    assert isinstance((await command("resume", tenant)).exception, ConflictError)
    await look(pool, clock)
    assert await steps(pool, invoice) == ["upcoming-1", "reminder-1"]
    table = (await command("status", tenant)).stdout
    assert "reminder-1" in table
    assert "to come" in table
    assert "they called" in table
    assert tenant in (await command("status")).stdout
    for wrong, kind in ((["pause", "nobody"], NotFoundError), (["pause", tenant, "--until", "soon"], InvalidInputError),
                        (["pause", tenant, "--until", "2020-01-01T00:00:00Z"], InvalidInputError)):  # fmt: skip
        assert isinstance((await command(*wrong)).exception, kind)


async def test_an_invoice_is_overdue_when_its_day_is_over_where_the_tenant_is(desk: Desk, pool: Pool) -> None:
    due = datetime(2026, 11, 4, 20, 0, tzinfo=UTC)  # the 5th in Tokyo, the 4th in Los Angeles
    invoices = {}
    for zone in ("Asia/Tokyo", "America/Los_Angeles"):
        tenant = await desk.books.add_tenant(None)
        async with pool.connection() as connection:
            await connection.execute("UPDATE tenants SET time_zone = %s WHERE tenant_id = %s", (zone, tenant))
        invoices[zone] = (await add(desk, tenant, due)).invoice_id
    store, clock = PostgresDueInvoices(pool), ManualClock(due)
    marked = {}
    for hour in range(24):
        clock.travel_to(due + timedelta(hours=hour))
        for invoice_id in await mark_overdue(invoices=store, clock=clock):
            marked[invoice_id] = hour
    # Los Angeles' 4th ends at 08:00 UTC on the 5th, Tokyo's 5th at 15:00 UTC.
    assert marked == {invoices["America/Los_Angeles"]: 12, invoices["Asia/Tokyo"]: 19}
    assert await mark_overdue(invoices=store, clock=clock) == []


async def test_the_workers_mark_dun_and_tell(desk: Desk, pool: Pool, settings: Settings, standins: Standins) -> None:
    """As processes run them, with the machine's clock: an invoice that was due yesterday."""
    now = datetime.now(UTC)
    invoice = await by_transfer(desk, "pt", due=now - timedelta(days=2))
    stop = asyncio.Event()
    with_mail = settings.model_copy(update={"smtp_url": standins.settings()["METERBOOK_SMTP_URL"]})
    tasks = [asyncio.create_task(work.run(with_mail, stop)) for work in (worker, overdue_worker)]
    async with asyncio.timeout(60):
        while not standins.mails():
            await asyncio.sleep(0.1)
        while (await rows(pool, "SELECT status FROM invoices WHERE invoice_id = %s", invoice.invoice_id)) != [
            {"status": "overdue"}
        ]:
            await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*tasks)
    assert standins.mails()[0]["subject"].startswith("A fatura TEST-")
    assert await steps(pool, invoice) == ["upcoming-1"]
