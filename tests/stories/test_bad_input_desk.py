"""What people ask of invoices and money that cannot be done: a code, and not one row changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from api.application import create_app
from invoicing.credit_invoice import CreditWish, credit_invoice
from invoicing.invoice_desk import InvoiceDesk
from invoicing.issue_one_time import OneTimeItem
from payments.refund_payment import RefundRequest, refund_payment
from tests.api.conftest import Fakes
from tests.stories.refusing import code_of, one_open_and_one_paid
from tests.stories.world import World

pytestmark = pytest.mark.integration
D = Decimal
OPEN, PAID = "MB-2026-000001", "MB-2026-000002"

WISHES: list[tuple[CreditWish, str]] = [
    (CreditWish(D("30.01")), "exceeds_invoice"),
    (CreditWish(D("0")), "invalid_amount"),
    (CreditWish(D("-1")), "invalid_amount"),
    (CreditWish(D("1.001")), "invalid_amount"),
    (CreditWish(D("NaN")), "invalid_amount"),
    (CreditWish(D("Infinity")), "invalid_amount"),
    (CreditWish(D("1e30")), "invalid_amount"),
    (CreditWish(D("1e999999")), "invalid_amount"),
    (CreditWish(None, {99: None}), "not_found"),
    (CreditWish(None, {0: None}), "not_found"),
    (CreditWish(None, {1: D("30.01")}), "exceeds_invoice"),
    (CreditWish(None, {1: D("0.001")}), "invalid_amount"),
]
ITEMS: list[tuple[OneTimeItem, str]] = [
    (OneTimeItem("Setup", D("1e40")), "invalid_amount"),
    (OneTimeItem("Setup", D("-1")), "invalid_amount"),
    (OneTimeItem("Setup", D("0.1234567890123")), "invalid_amount"),
    (OneTimeItem("Setup", D(1), D("-1")), "invalid_quantity"),
    (OneTimeItem("x" * 1_000, D(1)), "invalid_text"),
]
REFUNDS: list[tuple[dict[str, Any], str]] = [
    ({"amount": D("30.01")}, "exceeds_payment"),
    ({"amount": D("0.001")}, "invalid_amount"),
    ({"amount": D("1e40")}, "invalid_amount"),
    ({"amount": D("1e999999")}, "invalid_amount"),
    ({"amount": D("NaN")}, "invalid_amount"),
    ({"amount": D("-0.01")}, "invalid_amount"),
    ({"payment_id": "pay_nobody"}, "not_found"),
    ({"reason": "4242 4242 4242 4242"}, "card_number"),
    ({"key": ""}, "invalid_text"),
]

# Path, body, status, code: what reaches the books and is refused there, or before.
INVOICES = "/api/v1/invoices"
BODIES: list[tuple[str, Any, int, str]] = [
    (INVOICES, {"tenant_id": "nobody", "period": "2026-10"}, 404, "not_found"),
    (INVOICES, {"tenant_id": "acme", "period": "2026-99"}, 422, "invalid_period"),
    (INVOICES, {"tenant_id": "acme", "period": "9999-12"}, 422, "invalid_period"),
    (INVOICES, {"tenant_id": "acme", "period": "2026-11"}, 422, "period_not_over"),
    (INVOICES, {"tenant_id": "acme", "items": []}, 422, "invalid_items"),
    (INVOICES, {"tenant_id": "nobody", "items": [{"description": "a", "unit_amount": "1"}]}, 404, "not_found"),
    (INVOICES, {"tenant_id": "acme", "items": [{"description": "a", "unit_amount": "NaN"}]}, 422, "invalid_amount"),
    (INVOICES, {"tenant_id": "acme", "items": [{"description": "a", "unit_amount": "1e40"}]}, 422, "invalid_amount"),
    (INVOICES, {"tenant_id": "acme", "items": [{"description": "a"}]}, 422, "invalid_body"),
    (INVOICES, [], 422, "invalid_body"),
    (f"{INVOICES}/{OPEN}/credit-notes", {"reason": "x", "amount": "30.01"}, 422, "exceeds_invoice"),
    (f"{INVOICES}/{OPEN}/credit-notes", {"reason": "x", "amount": "1.001"}, 422, "invalid_amount"),
    (f"{INVOICES}/{OPEN}/credit-notes", {"reason": "", "amount": "1.00"}, 422, "invalid_reason"),
    (f"{INVOICES}/{OPEN}/credit-notes", {"reason": "x", "lines": {"99": None}}, 404, "not_found"),
    (f"{INVOICES}/MB-2026-999999/credit-notes", {"reason": "x", "amount": "1.00"}, 404, "not_found"),
    (f"{INVOICES}/{PAID}/void", {"reason": "x"}, 409, "invoice_state"),
    (f"{INVOICES}/MB-2026-999999/void", {"reason": "x"}, 404, "not_found"),
    (f"{INVOICES}/{PAID}/write-off", {"reason": "x"}, 409, "invoice_state"),
    (f"{INVOICES}/{OPEN}/void", {"reason": "x\0y"}, 422, "invalid_reason"),
    (f"{INVOICES}/MB-2026-999999/reissue", {"reason": "x"}, 404, "not_found"),
]


async def test_credits_that_cannot_be_given(world: World) -> None:
    await one_open_and_one_paid(world)

    async def credit(reference: str, wish: CreditWish, **how: str) -> object:
        given = {"reason": "sorry", "key": "k", **how}
        return await credit_invoice(reference, wish, books=world.books, terms=world.terms, clock=world.clock, **given)

    async with world.untouched():
        for wish, code in WISHES:
            assert await code_of(credit(OPEN, wish)) == code, wish
        assert await code_of(credit("MB-2026-999999", CreditWish(D(1)))) == "not_found"
        assert await code_of(credit(OPEN, CreditWish(D(1)), key="")) == "invalid_key"
        assert await code_of(credit(OPEN, CreditWish(D(1)), reason="")) == "invalid_reason"
    note = await world.credit(PAID, "30.00")
    async with world.untouched():
        assert await code_of(credit(PAID, CreditWish(D("0.01")), key="more")) == "nothing_left"
        assert await code_of(credit(note.number or "", CreditWish(D(1)))) == "invoice_state"


async def test_items_that_cannot_be_sold(world: World) -> None:
    await world.tenant("acme")
    async with world.untouched():
        for item, code in ITEMS:
            assert await code_of(world.one_time("acme", item)) == code, item
        assert await code_of(world.one_time("nobody", OneTimeItem("Setup", D(1)))) == "not_found"
    await world.one_time("acme", OneTimeItem("Setup", D(1)))
    async with world.untouched():
        assert await code_of(world.one_time("acme", OneTimeItem("Setup", D(2)))) == "key_used"


async def test_refunds_that_cannot_be_made(world: World) -> None:
    await one_open_and_one_paid(world)
    payment, _ = await world.payment_of(PAID)
    unpaid, _ = await world.payment_of(OPEN)

    async def refund(**changes: Any) -> object:
        facts = {"payment_id": payment, "key": "k", "amount": D("1.00"), "reason": "r", "requested_by": "me", **changes}
        wish = RefundRequest(**facts)
        return await refund_payment(wish, store=world.store, providers=world.providers, clock=world.clock)

    async with world.untouched():
        for changes, code in REFUNDS:
            assert await code_of(refund(**changes)) == code, changes
        assert await code_of(refund(payment_id=unpaid)) == "not_settled"
    await world.refund(PAID, "20.00")
    async with world.untouched():
        assert await code_of(refund(amount=D("10.01"))) == "exceeds_payment"
        assert await code_of(refund(key="first", amount=D("19.00"))) == "conflict", "the key refunded 20.00"


async def test_paying_twice_and_what_is_not_owed(world: World) -> None:
    await one_open_and_one_paid(world)
    world.travel("2026-11-05T09:00")
    entry, spare = await world.wire(("30.00", f"for {PAID} once more"), ("12.34", "nothing named"))
    async with world.untouched():
        assert await code_of(world.confirm(entry, PAID)) == "nothing_open"
        assert await code_of(world.confirm(entry, PAID, OPEN)) == "nothing_open"
        assert await code_of(world.confirm(spare, "MB-2026-999999")) == "unknown_invoice"
        for amount in ("1.001", "0", "-1", "NaN", "1e999999"):
            assert await code_of(world.confirm(spare, (OPEN, amount))) == "invalid_amount", amount
        assert await code_of(world.confirm(spare, OPEN, OPEN)) == "duplicate_invoice"
        assert await code_of(world.confirm(spare, rest="credit", tenant_id="nobody")) == "unknown_tenant"
        assert await code_of(world.give_back(entry, spare)) == "not_outgoing"
    # Charged again by card while it is being charged already: the second attempt is the first one.
    await world.void(OPEN)
    async with world.untouched():
        assert await code_of(world.confirm(spare, OPEN)) == "not_payable"
        assert await code_of(world.write_off(OPEN)) == "invoice_state"


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    fakes = Fakes()
    fakes.invoice_desk = InvoiceDesk(world.pool, world.usage, lambda: world.terms, world.clock)
    transport = httpx2.ASGITransport(app=create_app(fakes.dependencies()), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as opened:
        yield opened


async def test_bodies_that_make_no_sense(world: World, client: httpx2.AsyncClient) -> None:
    await one_open_and_one_paid(world)
    async with world.untouched():
        for path, body, status, code in BODIES:
            answer = await client.post(path, json=body, headers={"Idempotency-Key": "k"})
            told = answer.json()
            assert (answer.status_code, told.get("code")) == (status, code), (path, body, told)
        for raw in (b"", b"{", b"\xff\xfe", b"[" * 5_000, b'{"reason": "x", "amount": 1e999}'):
            answer = await client.post(f"{INVOICES}/{OPEN}/credit-notes", content=raw)
            assert answer.status_code in (400, 413, 415, 422), (raw[:20], answer.text)
