"""Webhooks' effect on the real store: settled once, whatever the order, and poison is kept with its reason."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from core.clock import SystemClock
from core.messages import InvoiceFinalized
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_events import StripeWebhookReader
from payments.adapters.stripe_provider import StripeProvider
from payments.apply_webhook import apply_next_webhook
from payments.charge_invoice import charge_invoice
from payments.domain.payment import Payment
from payments.inbox_worker import InboxWorker
from payments.ports import StoredWebhook
from tests.payments.conftest import Books
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
READERS = {"stripe": StripeWebhookReader()}


class Desk:
    """One payment under way, and webhooks about it."""

    def __init__(self, books: Books, store: PostgresPayments, provider: StripeProvider) -> None:
        self.books, self.store, self.provider = books, store, provider

    async def charge(self, method: str = "pm_card_visa") -> tuple[InvoiceFinalized, Payment]:
        invoice = await self.books.add_invoice(await self.books.add_tenant(method))
        providers = {"stripe": self.provider}
        payment = await charge_invoice(invoice, store=self.store, providers=providers, clock=SystemClock())
        assert payment is not None
        return invoice, payment

    def event(self, payment: Payment, kind: str = "payment_intent.succeeded", **changes: Any) -> dict[str, Any]:
        minor = int(payment.amount.amount * 100)
        intent = {
            "id": payment.provider_reference,
            "object": "payment_intent",
            "amount": minor,
            "amount_received": minor if kind.endswith("succeeded") else 0,
            "currency": payment.amount.currency.lower(),
            "metadata": {"payment_id": payment.payment_id},
            "status": "succeeded" if kind.endswith("succeeded") else "requires_payment_method",
            "last_payment_error": None,
            **changes,
        }
        return {"id": f"evt_{uuid4().hex}", "type": kind, "created": 1_793_600_000, "data": {"object": intent}}

    async def keep(self, event: Any, body: bytes | None = None) -> str:
        event_id = event["id"] if isinstance(event, dict) else f"evt_{uuid4().hex}"
        raw = json.dumps(event).encode() if body is None else body
        kind = event["type"] if isinstance(event, dict) else "unreadable"
        await self.store.add(StoredWebhook("stripe", event_id, kind, raw), datetime.now(UTC))
        return event_id

    async def apply_all(self) -> None:
        while await apply_next_webhook(store=self.store, readers=READERS, clock=SystemClock()):
            pass

    async def tell(self, *events: dict[str, Any]) -> list[str]:
        kept = [await self.keep(event) for event in events]
        await self.apply_all()
        return kept


@pytest.fixture
async def desk(books: Books, store: PostgresPayments, provider: StripeProvider) -> Desk:
    desk = Desk(books, store, provider)
    await desk.apply_all()
    return desk


async def test_success_settles_and_announces_in_one_step(desk: Desk) -> None:
    invoice, payment = await desk.charge()
    [event_id] = await desk.tell(desk.event(payment))
    [row] = await desk.books.payments_of(invoice)
    assert row["status"] == "succeeded"
    assert row["settled_at"] == datetime.fromtimestamp(1_793_600_000, UTC)
    assert await desk.books.announced(invoice) == ["payment.settled"]
    assert await desk.books.refusal_of(event_id) == (True, None)


async def test_the_same_news_again_changes_nothing(desk: Desk) -> None:
    invoice, payment = await desk.charge()
    event = desk.event(payment)
    await desk.tell(event, event, desk.event(payment))
    await desk.tell(event)
    assert await desk.books.announced(invoice) == ["payment.settled"]


async def test_success_before_failure_and_after_it_ends_alike(desk: Desk) -> None:
    for reverse in (False, True):
        invoice, payment = await desk.charge()
        failure = desk.event(
            payment,
            "payment_intent.payment_failed",
            last_payment_error={"code": "card_declined", "message": "No.", "decline_code": "do_not_honor"},
        )
        events = [failure, desk.event(payment)]
        await desk.tell(*(reversed(events) if reverse else events))
        [row] = await desk.books.payments_of(invoice)
        assert (row["status"], row["failure_code"]) == ("succeeded", None)
        told = await desk.books.announced(invoice)
        assert told == (["payment.settled"] if reverse else ["payment.failed", "payment.settled"])


async def test_a_failure_is_recorded_with_the_issuers_word(desk: Desk) -> None:
    invoice, payment = await desk.charge()
    error = {"code": "card_declined", "message": "Your card was declined.", "decline_code": "insufficient_funds"}
    await desk.tell(desk.event(payment, "payment_intent.payment_failed", last_payment_error=error))
    [row] = await desk.books.payments_of(invoice)
    assert (row["status"], row["failure_code"]) == ("failed", "card_declined")
    assert row["failure_reason"] == "Your card was declined. (insufficient_funds)"


async def test_a_needed_authentication_is_not_a_failure(desk: Desk) -> None:
    invoice, payment = await desk.charge("pm_card_authenticationRequired")
    error = {"code": "authentication_required", "message": "Authenticate."}
    await desk.tell(desk.event(payment, "payment_intent.payment_failed", last_payment_error=error))
    assert [row["status"] for row in await desk.books.payments_of(invoice)] == ["requires_action"]
    assert await desk.books.announced(invoice) == []


async def test_a_webhook_that_overtakes_the_answer_settles_a_pending_payment(desk: Desk, standins: Standins) -> None:
    from core.errors import UnavailableError

    invoice = await desk.books.add_invoice(await desk.books.add_tenant())
    standins.fail_stripe("cut_after", method="POST", path="/v1/payment_intents")
    providers = {"stripe": desk.provider}
    with pytest.raises(UnavailableError):
        await charge_invoice(invoice, store=desk.store, providers=providers, clock=SystemClock())
    async with desk.store.transaction() as unit:
        pending = await unit.latest_payment(invoice.invoice_id)
    assert pending is not None
    assert pending.status == "pending"
    await desk.tell(desk.event(pending, id=standins.ledger()[0]["payment_intent"]))
    again = await charge_invoice(invoice, store=desk.store, providers=providers, clock=SystemClock())
    assert again is not None
    assert again.status == "succeeded"
    assert len(standins.ledger()) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount_received": 12_539}, "amount_mismatch"),
        ({"amount_received": 10**30}, "amount_mismatch"),
        ({"currency": "eur"}, "amount_mismatch"),
        ({"currency": "zzz"}, "malformed_event"),
        ({"currency": None}, "malformed_event"),
        ({"amount_received": "12540"}, "malformed_event"),
        ({"amount_received": 12540.0}, "malformed_event"),
        ({"id": "pi_of_someone_else"}, "reference_mismatch"),
        ({"id": None}, "malformed_event"),
        ({"id": "pi_stranger", "metadata": {}}, "unknown_payment"),
        ({"id": "pi_stranger", "metadata": {"payment_id": "pay_stranger"}}, "unknown_payment"),
        ({"id": "pi_\0", "metadata": {"payment_id": "pay_\0"}}, "unstorable"),
    ],
)
async def test_what_cannot_be_true_is_kept_with_its_reason(desk: Desk, changes: dict[str, Any], code: str) -> None:
    invoice, payment = await desk.charge()
    [event_id] = await desk.tell(desk.event(payment, **changes))
    closed, refusal = await desk.books.refusal_of(event_id)
    assert closed
    assert (refusal or "").startswith(f"{code}: ")
    assert [row["status"] for row in await desk.books.payments_of(invoice)] == ["processing"]
    assert await desk.books.announced(invoice) == []


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"\xff", b'{"type": 5}', b'{"type":"payment_intent.succeeded"}', b"[" * 50_000]
)
async def test_poison_never_blocks_what_is_behind_it(desk: Desk, body: bytes) -> None:
    invoice, payment = await desk.charge()
    poison = await desk.keep(None, body)
    await desk.tell(desk.event(payment))
    closed, refusal = await desk.books.refusal_of(poison)
    assert closed
    assert refusal
    assert [row["status"] for row in await desk.books.payments_of(invoice)] == ["succeeded"]


async def test_types_of_no_concern_are_closed_without_a_refusal(desk: Desk) -> None:
    [event_id] = await desk.tell({"id": f"evt_{uuid4().hex}", "type": "customer.created", "data": {"object": {}}})
    assert await desk.books.refusal_of(event_id) == (True, None)


async def test_several_workers_share_the_inbox(desk: Desk) -> None:
    paid = [await desk.charge() for _ in range(4)]
    for _, payment in paid:
        await desk.keep(desk.event(payment))
        await desk.keep(desk.event(payment))
    stop = asyncio.Event()
    workers = [asyncio.create_task(InboxWorker(desk.store, READERS, SystemClock()).run(stop)) for _ in range(3)]
    try:
        async with asyncio.timeout(20):
            while not all([await desk.books.announced(invoice) for invoice, _ in paid]):
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await asyncio.gather(*workers)
    for invoice, _ in paid:
        assert await desk.books.announced(invoice) == ["payment.settled"]
