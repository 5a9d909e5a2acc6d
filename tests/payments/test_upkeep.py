"""Look-ups by the clock, the sweep of events that never came, slow bank debits, saved methods, the product list."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from core.errors import ConflictError, NotFoundError, UnavailableError
from payments.adapters.postgres_store import PostgresPayments
from payments.begin_method_setup import begin_method_setup, list_saved_methods
from payments.domain.price_list import PlanDocument
from payments.sync_catalogue import sync_catalogue
from payments.upkeep_worker import run
from runtime.settings import Settings
from tests.payments.conftest import Books
from tests.payments.desk import Desk
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
INTENTS = "/v1/payment_intents"


async def test_a_charge_whose_caller_died_is_found_after_five_minutes(desk: Desk, standins: Standins) -> None:
    invoice = await desk.books.add_invoice(await desk.books.add_tenant())
    standins.fail_stripe("cut_after", method="POST", path=INTENTS)
    assert await desk.charge(invoice) is None
    assert await desk.janitor(timedelta(minutes=4)) == 0
    assert await desk.janitor(timedelta(minutes=2)) == 1
    [row] = await desk.books.payments_of(invoice)
    assert (row["status"], row["checks"]) == ("succeeded", 1)
    assert await desk.books.announced(invoice) == ["payment.settled"]
    # The webhook comes days late and finds it so.
    await desk.catch_up()
    assert await desk.books.announced(invoice) == ["payment.settled"]
    assert await desk.janitor(timedelta(days=2)) == 0


async def test_what_never_reached_the_provider_waits_for_its_key_to_die(desk: Desk, standins: Standins) -> None:
    invoice = await desk.books.add_invoice(await desk.books.add_tenant())
    standins.fail_stripe("unavailable", method="POST", path=INTENTS)
    assert await desk.charge(invoice) is None
    seen = []
    for later in (timedelta(minutes=6), timedelta(hours=1), timedelta(days=1)):
        assert await desk.janitor(later) == 1
        seen.append((await desk.books.payments_of(invoice))[0]["status"])
    assert seen == ["pending", "pending", "failed"]
    assert await desk.books.announced(invoice) == ["payment.failed"]
    assert standins.ledger() == []


async def test_an_outage_of_the_provider_moves_the_look_up_and_nothing_else(desk: Desk, standins: Standins) -> None:
    invoice = await desk.books.add_invoice(await desk.books.add_tenant())
    standins.fail_stripe("cut_after", method="POST", path=INTENTS)
    await desk.charge(invoice)
    standins.fail_stripe("unavailable", method="GET", path=INTENTS)
    assert await desk.janitor(timedelta(minutes=6)) == 1
    assert (await desk.books.payments_of(invoice))[0]["status"] == "pending"
    assert await desk.janitor(timedelta(minutes=30)) == 0
    assert await desk.janitor(timedelta(minutes=30)) == 1
    assert (await desk.books.payments_of(invoice))[0]["status"] == "succeeded"


@pytest.mark.parametrize(
    ("method", "status", "code"),
    [
        ("pm_usBankAccount_success", "succeeded", None),
        ("pm_bacsDebit_successDelayed", "succeeded", None),
        ("pm_sepaDebit_success", "succeeded", None),
        ("pm_usBankAccount_insufficientFunds", "failed", "insufficient_funds"),
        ("pm_sepaDebit_insufficientFunds", "failed", "insufficient_funds"),
        ("pm_bacsDebit_debitNotAuthorizedDelayed", "failed", "debit_not_authorized"),
    ],
)
async def test_a_bank_debit_is_in_process_until_the_bank_has_spoken(
    method: str, status: str, code: str | None, desk: Desk, standins: Standins
) -> None:
    tenant = await desk.books.add_tenant(method)
    invoice = await desk.books.add_invoice(tenant)
    payment = await desk.charge(invoice)
    assert payment is not None
    await desk.catch_up()
    assert await desk.janitor(timedelta(days=3)) == 1
    assert (await desk.payment(payment.payment_id)).status == "processing"
    assert await desk.books.announced(invoice) == []
    standins.settle_debit(payment.provider_reference or "")
    await desk.catch_up()
    ended = await desk.payment(payment.payment_id)
    assert (ended.status, ended.failure_code) == (status, code)
    assert len(standins.ledger()) == (status == "succeeded")
    # A mandate that was withdrawn takes the method with it.
    async with desk.store.transaction() as unit:
        left = await unit.method_at(tenant, "stripe")
    assert (left is None) == (code == "debit_not_authorized")


async def test_the_sweep_finds_what_never_came_once(desk: Desk, standins: Standins) -> None:
    payment = await desk.settled()
    assert payment.status == "succeeded"
    assert await desk.sweep() == 0
    standins.fail_stripe("unavailable", method="GET", path="/v1/events")
    before = await desk.store.swept_until("stripe")
    with pytest.raises(UnavailableError):
        await desk.sweep()
    assert await desk.store.swept_until("stripe") == before


async def test_a_method_saved_in_stripes_form_is_charged(
    desk: Desk, standins: Standins, store: PostgresPayments
) -> None:
    tenant = await desk.books.add_tenant(method=None)
    registrar = desk.provider
    setup = await begin_method_setup(tenant, ("sepa_debit",), "k1", payers=store, registrar=registrar)
    again = await begin_method_setup(tenant, ("sepa_debit",), "k1", payers=store, registrar=registrar)
    assert setup == again
    assert setup.client_secret.startswith(setup.reference)
    assert "secret" not in repr(setup)
    standins.complete_setup(setup.reference, "pm_sepaDebit_success")
    await desk.catch_up()
    [saved] = await list_saved_methods(tenant, payers=store, registrar=registrar)
    assert (saved.kind, saved.last4) == ("sepa_debit", "3000")
    payment = await desk.charge(await desk.books.add_invoice(tenant))
    assert payment is not None
    assert payment.status == "processing"
    client = desk.provider._client.v1
    await client.payment_methods.detach_async(saved.reference)
    await desk.catch_up()
    unpaid = await desk.charge(await desk.books.add_invoice(tenant, sequence=2))
    assert unpaid is not None
    assert unpaid.failure_code == "no_payment_method"
    with pytest.raises(NotFoundError):
        await begin_method_setup("nobody", (), "k1", payers=store, registrar=registrar)


async def test_the_catalogue_is_listed_once_and_prices_never_change(desk: Desk, standins: Standins) -> None:
    def plan(name: str, fee: str, version: int) -> PlanDocument:
        charge = {"id": "base", "name": "Base", "model": "flat", "flat_amount": fee}
        return PlanDocument("lite", version, {"name": name, "currency": "USD", "charges": [charge]})

    first = await sync_catalogue([plan("Lite", "99", 1)], provider=desk.provider)
    assert (first.products_changed, first.prices_added) == (("lite",), ("meterbook:lite@1:base",))
    second = await sync_catalogue([plan("Lite", "99", 1)], provider=desk.provider)
    assert (second.products_changed, second.prices_added) == ((), ())
    third = await sync_catalogue([plan("Lite", "99", 1), plan("Lite 2", "109.5", 2)], provider=desk.provider)
    assert (third.products_changed, third.prices_added) == (("lite",), ("meterbook:lite@2:base",))
    listed = standins.products()
    assert [product["name"] for product in listed["products"]] == ["Lite 2"]
    assert [(price["unit_amount"], price["recurring"]["interval"]) for price in listed["prices"]] == [
        (9_900, "month"),
        (10_950, "month"),
    ]
    with pytest.raises(ConflictError):
        await sync_catalogue([plan("Lite 2", "98", 1)], provider=desk.provider)


async def test_the_worker_does_all_of_it_until_it_is_stopped(
    settings: Settings, desk: Desk, books: Books, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    await desk.charge(invoice)
    async with desk.store._pool.connection() as connection:
        await connection.execute(
            "UPDATE payments SET next_check_at = now() WHERE invoice_id = %s", (invoice.invoice_id,)
        )
    stop = asyncio.Event()
    worker = asyncio.ensure_future(run(settings, stop))
    async with asyncio.timeout(30):
        while await books.announced(invoice) != ["payment.settled"]:
            await asyncio.sleep(0.05)
    stop.set()
    await worker
    assert await desk.store.swept_until("stripe") is not None
