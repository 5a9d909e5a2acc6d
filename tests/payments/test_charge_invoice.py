"""Charging against Stripe's stand-in: whatever breaks, its ledger shows one charge per amount due."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from core.clock import Clock, ManualClock, SystemClock
from core.errors import InvalidInputError, UnavailableError
from core.messages import InvoiceFinalized
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_provider import StripeProvider
from payments.charge_invoice import charge_invoice
from payments.domain.payment import Payment, payment_id_of
from tests.payments.conftest import Books
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
INTENTS = "/v1/payment_intents"
_WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'"


class Charging:
    """Charges like the consumer does: again and again until the outcome is known."""

    def __init__(self, store: PostgresPayments, provider: StripeProvider) -> None:
        self.store, self.provider, self.clock = store, provider, SystemClock()
        self.waited: list[str] = []

    async def once(self, invoice: InvoiceFinalized, clock: Clock | None = None) -> Payment | None:
        providers = {self.provider.name: self.provider}
        return await charge_invoice(invoice, store=self.store, providers=providers, clock=clock or self.clock)

    async def until_known(self, invoice: InvoiceFinalized) -> Payment | None:
        for _ in range(20):
            try:
                return await self.once(invoice)
            except UnavailableError as unknown:
                self.waited.append(unknown.code)
        raise AssertionError("the outcome stayed unknown over twenty tries")


@pytest.fixture
def charging(store: PostgresPayments, provider: StripeProvider) -> Charging:
    return Charging(store, provider)


def charges(standins: Standins) -> list[tuple[int, str]]:
    return [(charge["amount"], charge["currency"]) for charge in standins.ledger()]


async def test_an_amount_due_is_charged_once_and_waits_for_the_webhook(
    books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    first = await charging.once(invoice)
    second = await charging.once(invoice)
    assert first is not None
    assert second is not None
    assert (first.status, first.payment_id) == ("processing", payment_id_of(invoice.invoice_id, 1))
    assert first.provider_reference == second.provider_reference
    assert charges(standins) == [(12_540, "usd")]
    created = [r for r in standins.stripe_requests() if r["method"] == "POST" and r["path"] == INTENTS]
    assert len(created) == 1
    assert await books.announced(invoice) == []


async def test_what_the_provider_is_told_leads_back_to_the_invoice(
    books: Books, charging: Charging, standins: Standins, provider: StripeProvider
) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    payment = await charging.once(invoice)
    assert payment is not None
    assert payment.provider_reference is not None
    intent = (await provider._client.v1.payment_intents.retrieve_async(payment.provider_reference)).to_dict()
    assert intent["metadata"] == {
        "invoice_id": invoice.invoice_id,
        "payment_id": payment.payment_id,
        "tenant_id": invoice.tenant_id,
    }
    assert intent["description"] == f"Invoice {invoice.number}"


@pytest.mark.parametrize("status", ["void", "uncollectible"])
async def test_an_invoice_that_was_taken_back_before_its_message_was_read_is_not_charged(
    books: Books, charging: Charging, standins: Standins, status: str
) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    async with books.pool.connection() as connection:
        await connection.execute("UPDATE invoices SET status = %s WHERE invoice_id = %s", (status, invoice.invoice_id))
    assert await charging.once(invoice) is None
    assert await books.payments_of(invoice) == []
    assert charges(standins) == []


async def test_no_more_is_charged_than_credit_notes_and_payments_left_open(
    books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    async with books.pool.connection() as connection:
        await connection.execute(
            "UPDATE invoices SET amount_credited = 20, amount_paid = 15 WHERE invoice_id = %s", (invoice.invoice_id,)
        )
    first = await charging.once(invoice)
    assert first is not None
    assert str(first.amount) == "90.40 USD"  # 125.40 - 20.00 credited - 15.00 paid
    assert charges(standins) == [(9_040, "usd")]


async def test_who_voids_an_invoice_is_waited_for(books: Books, charging: Charging, standins: Standins) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    async with books.pool.connection() as connection, connection.transaction():
        await connection.execute("UPDATE invoices SET status = 'void' WHERE invoice_id = %s", (invoice.invoice_id,))
        asked = asyncio.create_task(charging.once(invoice))
        async with asyncio.timeout(30):
            while not await _someone_waits(books):
                await asyncio.sleep(0.02)
        assert not asked.done()
    assert await asked is None
    assert charges(standins) == []


async def _someone_waits(books: Books) -> bool:
    async with books.pool.connection() as connection:
        return bool(await (await connection.execute(_WAITING)).fetchall())


async def test_an_invoice_in_another_currency_is_refused(books: Books, charging: Charging, standins: Standins) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    with pytest.raises(InvalidInputError, match="EUR asked, the invoice is in USD"):
        await charging.once(msgspec.structs.replace(invoice, currency="EUR"))
    assert charges(standins) == []


async def test_nothing_due_asks_nobody(books: Books, charging: Charging, standins: Standins) -> None:
    invoice = await books.add_invoice(await books.add_tenant(), amount="0.00")
    assert await charging.once(invoice) is None
    assert await books.payments_of(invoice) == []
    assert charges(standins) == []


async def test_currencies_go_in_their_own_minor_units(books: Books, charging: Charging, standins: Standins) -> None:
    tenant = await books.add_tenant()
    await charging.once(await books.add_invoice(tenant, "1250", "JPY", sequence=1))
    await charging.once(await books.add_invoice(tenant, "9.990", "KWD", sequence=2))
    assert charges(standins) == [(1_250, "jpy"), (9_990, "kwd")]


async def test_a_tenant_without_a_method_has_a_failed_payment_and_is_told(
    books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant(method=None))
    payment = await charging.once(invoice)
    assert payment is not None
    assert (payment.status, payment.failure_code) == ("failed", "no_payment_method")
    await charging.once(invoice)
    assert len(await books.payments_of(invoice)) == 1
    assert await books.announced(invoice) == ["payment.failed"]
    assert charges(standins) == []


async def test_a_decline_is_recorded_with_its_code_and_not_repeated(
    books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant("pm_card_chargeCustomerFail"))
    payment = await charging.once(invoice)
    assert payment is not None
    assert (payment.status, payment.failure_code) == ("failed", "card_declined")
    assert payment.provider_reference is not None
    assert "generic_decline" in (payment.failure_reason or "")
    await charging.once(invoice)
    assert charges(standins) == []
    assert await books.announced(invoice) == ["payment.failed"]


async def test_a_card_that_wants_its_holder_waits_instead_of_failing(
    books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant("pm_card_authenticationRequired"))
    payment = await charging.once(invoice)
    assert payment is not None
    assert (payment.status, payment.failure_code) == ("requires_action", "authentication_required")
    assert await books.announced(invoice) == []
    assert charges(standins) == []


async def test_what_the_provider_cannot_take_fails_visibly(
    books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant(), amount="0.10")
    payment = await charging.once(invoice)
    assert payment is not None
    assert (payment.status, payment.failure_code) == ("failed", "amount_too_small")
    assert charges(standins) == []


@pytest.mark.parametrize(
    "kind",
    ["unavailable", "rate_limit", "conflict", "cut_before", "cut_after", "cut_in_body", "server_error_after"],
)
async def test_one_charge_whatever_happens_to_the_answer(
    kind: str, books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    standins.fail_stripe(kind, count=3, method="POST", path=INTENTS)
    payment = await charging.until_known(invoice)
    assert payment is not None
    assert (payment.status, payment.attempt) == ("processing", 1)
    assert charging.waited[:1] == ["unknown_outcome"]
    assert charges(standins) == [(12_540, "usd")]
    assert payment.provider_reference == standins.ledger()[0]["payment_intent"]


async def test_a_timeout_after_the_charge_is_looked_up(
    books: Books, store: PostgresPayments, standins: Standins
) -> None:
    impatient = StripeProvider(standins.stripe_api_key, standins.stripe_url, timeout_seconds=0.3)
    charging = Charging(store, impatient)
    invoice = await books.add_invoice(await books.add_tenant())
    standins.fail_stripe("hang_after", method="POST", path=INTENTS, seconds=20)
    payment = await charging.until_known(invoice)
    await impatient.close()
    assert payment is not None
    assert payment.status == "processing"
    assert charging.waited == ["unknown_outcome"]
    assert charges(standins) == [(12_540, "usd")]


async def test_an_error_that_the_provider_keeps_repeating_gives_way_to_the_next_attempt(
    books: Books, charging: Charging, standins: Standins
) -> None:
    # 500 kept for the key and nothing done: the key is dead, the look-up shows no charge, attempt 2 has its own key.
    invoice = await books.add_invoice(await books.add_tenant())
    standins.fail_stripe("server_error", method="POST", path=INTENTS)
    payment = await charging.until_known(invoice)
    assert payment is not None
    assert (payment.status, payment.attempt) == ("processing", 2)
    first, second = await books.payments_of(invoice)
    assert (first["status"], first["failure_code"]) == ("failed", "provider_error")
    assert second["payment_id"] == payment_id_of(invoice.invoice_id, 2)
    assert charges(standins) == [(12_540, "usd")]


async def test_after_the_keys_life_nothing_is_sent_blindly(
    books: Books, charging: Charging, standins: Standins
) -> None:
    # The charge went through, its answer did not, and a day later Stripe has forgotten the key.
    clock = ManualClock(datetime.now(UTC))
    invoice = await books.add_invoice(await books.add_tenant())
    standins.fail_stripe("cut_after", method="POST", path=INTENTS)
    with pytest.raises(UnavailableError):
        await charging.once(invoice, clock)
    standins.expire_idempotency_keys()
    clock.advance(timedelta(hours=25))
    payment = await charging.once(invoice, clock)
    assert payment is not None
    assert (payment.status, payment.attempt) == ("processing", 1)
    assert charges(standins) == [(12_540, "usd")]


async def test_an_outage_of_the_look_up_keeps_the_payment_pending(
    books: Books, charging: Charging, standins: Standins
) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    standins.fail_stripe("cut_after", method="POST", path=INTENTS)
    standins.fail_stripe("unavailable", method="GET", path=INTENTS)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await charging.once(invoice)
    assert [row["status"] for row in await books.payments_of(invoice)] == ["pending"]
    await charging.once(invoice)
    assert [row["status"] for row in await books.payments_of(invoice)] == ["processing"]
    assert charges(standins) == [(12_540, "usd")]


async def test_a_wrong_key_of_ours_loses_nothing(books: Books, store: PostgresPayments, standins: Standins) -> None:
    invoice = await books.add_invoice(await books.add_tenant())
    wrong = StripeProvider("sk_test_wrong", standins.stripe_url)
    with pytest.raises(UnavailableError):
        await Charging(store, wrong).once(invoice)
    await wrong.close()
    assert [row["status"] for row in await books.payments_of(invoice)] == ["pending"]


async def test_an_invoice_nobody_wrote_is_refused(books: Books, charging: Charging, standins: Standins) -> None:
    import msgspec

    invoice = await books.add_invoice(await books.add_tenant())
    forged = msgspec.structs.replace(invoice, invoice_id="inv_nobody")
    with pytest.raises(InvalidInputError) as refused:
        await charging.once(forged)
    assert refused.value.faults[0].code == "unknown_invoice"
    assert charges(standins) == []


async def test_two_workers_with_the_same_invoice_charge_once(
    books: Books, charging: Charging, standins: Standins, store: PostgresPayments, settings: Any
) -> None:
    import asyncio

    from payments.adapters.stripe_provider import create_stripe_provider

    other_provider = create_stripe_provider(settings)
    other = Charging(store, other_provider)
    invoice = await books.add_invoice(await books.add_tenant())
    standins.fail_stripe("slow", method="POST", path=INTENTS, seconds=0.3)
    payments = await asyncio.gather(charging.until_known(invoice), other.until_known(invoice))
    await other_provider.close()
    assert {payment.payment_id for payment in payments if payment} == {payment_id_of(invoice.invoice_id, 1)}
    assert charges(standins) == [(12_540, "usd")]
