"""Messages that make no sense, on every topic that moves money: a typed refusal, and not one row changed."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import InvalidInputError
from core.messages import (
    InvoiceFinalized,
    InvoicingRequest,
    PaymentDisputed,
    PaymentRefunded,
    PaymentSettled,
    decode_message,
    encode_message,
)
from core.topics import PAYMENT_DISPUTED, PAYMENT_REFUNDED, PAYMENT_SETTLED
from invoicing.consumer import settlement_handlers
from invoicing.invoice_period import invoice_period
from payments.charge_invoice import charge_invoice
from tests.stories.refusing import code_of, one_open_and_one_paid
from tests.stories.world import World

pytestmark = pytest.mark.integration
KINDS = (InvoicingRequest, InvoiceFinalized, PaymentSettled, PaymentRefunded, PaymentDisputed)

# What is changed of a message that would settle the open invoice, and the refusal.
SETTLED: list[tuple[dict[str, Any], str]] = [
    ({"invoice_id": "inv_nobody"}, "unknown_invoice"),
    ({"payment_id": "pay_nobody"}, "unknown_payment"),
    ({"tenant_id": "bolt"}, "tenant_mismatch"),
    ({"currency": "USD"}, "currency_mismatch"),
    ({"currency": "EUX"}, "unknown_currency"),
    ({"amount": "30.01"}, "amount_mismatch"),
    ({"amount": "30.001"}, "invalid_amount"),
    ({"amount": "29.999999999999999999999999999"}, "invalid_amount"),
    ({"amount": "0"}, "invalid_amount"),
    ({"amount": "-30.00"}, "invalid_amount"),
    ({"amount": "NaN"}, "invalid_amount"),
    ({"amount": "Infinity"}, "invalid_amount"),
    ({"amount": "1e400"}, "invalid_amount"),
    ({"amount": "9" * 40}, "invalid_amount"),
    ({"amount": "thirty"}, "invalid_amount"),
    ({"amount": ""}, "invalid_amount"),
    ({"settled_at": "2026-11-02T09:00:00"}, "invalid_time"),
    ({"settled_at": "soon"}, "invalid_time"),
    ({"amount": 30}, "malformed_message"),
    ({"amount": None}, "malformed_message"),
    ({"invoice_id": ["x"]}, "malformed_message"),
    ({"provider": ...}, "malformed_message"),
]
BACK: list[tuple[dict[str, Any], str]] = [
    ({"invoice_id": "inv_nobody"}, "unknown_invoice"),
    ({"payment_id": "pay_nobody"}, "unknown_payment"),
    ({"tenant_id": "acme"}, "tenant_mismatch"),
    ({"amount": "10.001"}, "invalid_amount"),
    ({"amount": "-1.00"}, "invalid_amount"),
    ({"at": "yesterday"}, "invalid_time"),
    ({"status": "gone"}, "malformed_message"),
]
FINALIZED: list[tuple[dict[str, Any], str]] = [
    ({"invoice_id": "inv_nobody"}, "unknown_invoice"),
    ({"currency": "USD"}, "currency_mismatch"),
    ({"currency": "EUX"}, "unknown_currency"),
    ({"amount_due": "30.001"}, "invalid_amount"),
    ({"amount_due": "-30.00"}, "invalid_amount"),
    ({"amount_due": "3e1"}, "invalid_amount"),
    ({"amount_due": "1234567890123.00"}, "invalid_amount"),
    ({"amount_due": " 30.00"}, "invalid_amount"),
]
REQUESTED: list[tuple[dict[str, Any], str]] = [
    ({"tenant_id": "nobody"}, "unknown_tenant"),
    ({"period": "2026-13"}, "invalid_period"),
    ({"period": "2026-11"}, "period_not_over"),
    ({"period": "9999-12"}, "invalid_period"),
    ({"period": "0001-01"}, "invalid_period"),
    ({"period": "9999-12-31T23:59:59+00:00"}, "invalid_period"),
    ({"period": "0001-01-01T00:00:00+14:00"}, "invalid_period"),
    ({"period": "2026-10-10T00:00:00"}, "invalid_period"),
    ({"period": ""}, "invalid_period"),
]


def changed(message: Any, changes: dict[str, Any]) -> bytes:
    document = {**json.loads(encode_message(message)), **changes}
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


async def settlement_of(world: World, number: str, **changes: Any) -> PaymentSettled:
    payment, reference = await world.payment_of(number)
    (row,) = await world.rows("SELECT invoice_id, tenant_id FROM invoices WHERE number = %s", number)
    known = {"payment_id": payment, "provider_reference": reference, "provider": "stripe", "currency": "EUR"}
    return PaymentSettled(**{**row, **known, "amount": "30.00", "settled_at": "2026-11-02T09:00:00Z", **changes})


async def test_settlements_that_cannot_be(world: World) -> None:
    opened, paid = await one_open_and_one_paid(world)
    message = await settlement_of(world, opened.number)
    settle = settlement_handlers(world.settlements, world.clock)[PAYMENT_SETTLED]
    async with world.untouched():
        for changes, code in SETTLED:
            assert await code_of(settle(changed(message, changes))) == code, changes
        assert await code_of(settle(None)) == "tombstone"
        # Paid before: the same message is no news, and neither another amount nor another payment gets in.
        known = await settlement_of(world, paid.number)
        await settle(encode_message(known))
        assert await code_of(settle(changed(known, {"amount": "29.00"}))) == "settled_otherwise"
        other = {"payment_id": message.payment_id}
        assert await code_of(settle(changed(known, other))) in {"amount_mismatch", "unknown_payment"}


async def test_refunds_and_disputes_that_cannot_be(world: World) -> None:
    _, paid = await one_open_and_one_paid(world)
    settled = await settlement_of(world, paid.number, amount="10.00")
    facts = {name: getattr(settled, name) for name in ("payment_id", "invoice_id", "tenant_id", "provider", "currency")}
    facts |= {"provider_reference": "x", "amount": "10.00", "reason": "asked for", "at": "2026-11-03T09:00:00Z"}
    refund = PaymentRefunded(refund_id="ref_1", **facts)
    dispute = PaymentDisputed(dispute_id="dsp_1", status="opened", evidence_due_at="", **facts)
    handlers = settlement_handlers(world.settlements, world.clock)
    async with world.untouched():
        for changes, code in BACK:
            assert await code_of(handlers[PAYMENT_REFUNDED](changed(refund, changes))) == code, changes
            assert await code_of(handlers[PAYMENT_DISPUTED](changed(dispute, changes))) == code, changes
        assert await code_of(handlers[PAYMENT_REFUNDED](changed(refund, {"status": "failed"}))) == "unknown_refund"
        assert await code_of(handlers[PAYMENT_DISPUTED](changed(dispute, {"status": "won"}))) == "unknown_dispute"


async def test_invoices_that_cannot_be_charged(world: World) -> None:
    opened, _ = await one_open_and_one_paid(world)
    payload = (await world.rows("SELECT payload FROM outbox WHERE key = 'acme' AND topic = 'invoice.finalized'"))[0]
    message = decode_message(bytes(payload["payload"]), InvoiceFinalized)
    payment, _ = await world.payment_of(opened.number)

    async def charge(raw: bytes, retry_of: str | None = None) -> None:
        invoice = decode_message(raw, InvoiceFinalized)
        await charge_invoice(
            invoice, store=world.store, providers=world.providers, clock=world.clock, retry_of=retry_of
        )

    async with world.untouched():
        for changes, code in FINALIZED:
            # As dunning asks for the next attempt: otherwise the first one is the answer to everything.
            assert await code_of(charge(changed(message, changes), retry_of=payment)) == code, changes
        await charge(encode_message(message))


async def test_requests_that_cannot_be_invoiced(world: World) -> None:
    await one_open_and_one_paid(world)
    message = InvoicingRequest(tenant_id="acme", period="2026-10", run_id="run", requested_at="")

    async def ask(raw: bytes) -> None:
        request = decode_message(raw, InvoicingRequest)
        await invoice_period(request, books=world.books, usage=world.usage, terms=world.terms, clock=world.clock)

    async with world.untouched():
        for changes, code in REQUESTED:
            assert await code_of(ask(changed(message, changes))) == code, changes
        await ask(encode_message(message))


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_in_any_field_is_a_message_or_refused(data: st.DataObject) -> None:
    kind: Any = data.draw(st.sampled_from(KINDS))
    junk = st.one_of(st.text(), st.integers(), st.none(), st.lists(st.text()), st.binary().map(repr))
    document = {name: data.draw(junk) for name in kind.__struct_fields__}
    with suppress(InvalidInputError):
        decode_message(json.dumps(document).encode(), kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_cut_at_any_byte_is_refused(kind: Any) -> None:
    facts = dict.fromkeys(kind.__struct_fields__, "x")
    if kind is PaymentDisputed:
        facts["status"] = "opened"
    if kind is PaymentRefunded:
        facts["status"] = "succeeded"
    whole = json.dumps({name: value for name, value in facts.items() if name != "schema_version"}).encode()
    assert decode_message(whole, kind)
    for length in range(len(whole)):
        with pytest.raises(InvalidInputError) as refused:
            decode_message(whole[:length], kind)
        assert refused.value.faults[0].code == "malformed_message"
