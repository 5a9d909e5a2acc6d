"""A paid invoice credited with its money given back: one transaction, no credit beside it, and what fails is seen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2
import pytest
import typer
from typer.testing import CliRunner

from api.application import create_app
from core.errors import ConflictError, InvalidInputError, MeterbookError, UnavailableError
from core.messages import InvoiceFinalized, PaymentRefunded, PaymentSettled, decode_message
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.commands import app as invoice_app
from invoicing.invoice_desk import InvoiceDesk
from invoicing.record_money_back import record_refund
from invoicing.settle_invoice import settle_invoice
from ledger.adapters.postgres_audit import PostgresAudit
from ledger.check_ledger import check_ledger
from payments.payment_commands import app as payment_app
from payments.payment_desk import NoteRefundDesk, PaymentDesk
from rating.adapters.postgres_credits import PostgresCreditLedger
from runtime.postgres import Pool
from runtime.settings import Settings
from tests.api.conftest import Fakes
from tests.invoicing.memory import MemoryUsage
from tests.invoicing.scene import TERMS
from tests.payments.desk import Desk
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
ALL = {"amount": None, "lines": {}, "reason": "sorry", "requested_by": "anna"}


@dataclass
class Scene:
    """A tenant with an invoice of 125.40, and who is asked about it."""

    desk: Desk
    pool: Pool
    invoices: InvoiceDesk
    payments: PaymentDesk
    tenant: str
    number: str
    invoice_id: str

    async def pay(self) -> None:
        """Charge it and let the money be settled."""
        (said,) = await self.said("invoice.finalized", self.invoice_id)
        payment = await self.desk.charge(decode_message(said, InvoiceFinalized))
        assert payment is not None
        await self.turn()

    async def turn(self) -> None:
        """Make refunds, fetch the provider's events, and let invoicing hear of all of it, twice."""
        await self.desk.janitor()
        await self.desk.catch_up()
        settlements, clock = PostgresSettlements(self.pool), self.desk.clock
        for _ in range(2):
            for said in await self.said("payment.settled", self.invoice_id):
                await settle_invoice(decode_message(said, PaymentSettled), settlements=settlements, clock=clock)
            for said in await self.said("payment.refunded", self.invoice_id):
                await record_refund(decode_message(said, PaymentRefunded), settlements=settlements, clock=clock)

    async def said(self, topic: str, invoice_id: str) -> list[bytes]:
        rows = await self.rows(
            "SELECT payload FROM outbox WHERE topic = %s AND convert_from(payload, 'UTF8')::jsonb ->> 'invoice_id' = %s"
            " ORDER BY outbox_id", topic, invoice_id,
        )  # fmt: skip
        return [bytes(row["payload"]) for row in rows]

    async def credit_and_refund(self, amount: str | None = None, key: str = "k") -> dict[str, Any]:
        wish = {**ALL, "amount": None if amount is None else Decimal(amount)}
        return await self.invoices.credit_and_refund(self.number, **wish, key=f"{self.tenant}-{key}")

    async def credit_left(self) -> Decimal:
        async with self.pool.connection() as connection:
            credits = await PostgresCreditLedger(connection).credits(self.tenant)
        return sum((one.balance for one in credits), Decimal(0))

    async def balance(self, account: str) -> Decimal:
        """Return debits less credits of an account of the ledger, after proving what is the tenant's of it."""
        proof = await check_ledger(PostgresAudit(self.pool))
        assert [fault for fault in proof.faults if self.tenant in fault] == [], "the ledger agrees with the books"
        (row,) = await self.rows(
            "SELECT coalesce(sum(debit - credit), 0) AS balance FROM ledger_postings WHERE tenant_id = %s"
            " AND account = %s", self.tenant, account,
        )  # fmt: skip
        return Decimal(row["balance"])

    async def owed(self) -> list[dict[str, Any]]:
        return [one for one in await self.payments.list_owed_refunds() if one["tenant_id"] == self.tenant]

    async def notes(self) -> int:
        (row,) = await self.rows(
            "SELECT count(*) AS notes FROM invoices WHERE tenant_id = %s AND kind = 'credit_note'", self.tenant
        )
        return int(row["notes"])

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments)).fetchall()


async def scene_with(desk: Desk, pool: Pool, method: str | None) -> Scene:
    invoices = InvoiceDesk(pool, MemoryUsage(), lambda: TERMS, desk.clock, NoteRefundDesk(desk.clock))
    tenant = await desk.books.add_tenant(method)
    items = [{"description": "Setup", "unit_amount": Decimal("125.40")}]
    sold = await invoices.sell_once(tenant, items, key=f"sold-{tenant}")
    return Scene(desk, pool, invoices, PaymentDesk(pool, desk.clock), tenant, sold["number"], sold["invoice_id"])


@pytest.fixture
async def scene(desk: Desk, pool: Pool, standins: Standins) -> Scene:
    found = await scene_with(desk, pool, "pm_card_visa")
    await found.pay()
    return found


async def test_what_was_paid_goes_back_in_place_of_a_credit(scene: Scene, standins: Standins) -> None:
    made = await scene.credit_and_refund("62.70")
    assert (made["total"], made["refund"]["status"], made["refund"]["amount"]) == ("-62.70", "pending", "62.70")
    # In place of the credit, not beside it; and until the money has gone, the ledger says that it is to go.
    assert await scene.credit_left() == 0
    assert (await scene.balance("refunds"), standins.ledger()[0]["amount_refunded"]) == (Decimal("-62.70"), 0)
    again = await scene.credit_and_refund("62.70")
    assert (again["number"], again["refund"]) == (made["number"], made["refund"])
    await scene.turn()
    assert standins.ledger()[0]["amount_refunded"] == 6_270
    assert (await scene.balance("refunds"), await scene.balance("customer_credit")) == (0, 0)
    # 125.40 came, 62.70 went back.
    assert await scene.balance("cash:stripe") == Decimal("62.70")
    done = await scene.credit_and_refund("62.70")
    assert (done["number"], done["refund"]["status"]) == (made["number"], "done")
    await scene.turn()
    assert (standins.ledger()[0]["amount_refunded"], await scene.notes()) == (6_270, 1)
    assert await scene.owed() == []


async def test_who_asks_at_once_refunds_once(scene: Scene, standins: Standins) -> None:
    made = await asyncio.gather(*(scene.credit_and_refund() for _ in range(4)))
    assert len({one["number"] for one in made}) == 1
    await scene.turn()
    assert (standins.ledger()[0]["amount_refunded"], await scene.notes()) == (12_540, 1)
    assert (await scene.credit_left(), await scene.balance("refunds")) == (0, 0)


async def test_what_cannot_be_refunded_leaves_no_credit_note(desk: Desk, pool: Pool, standins: Standins) -> None:
    unpaid = await scene_with(desk, pool, "pm_card_visa")
    with pytest.raises(InvalidInputError, match="had been paid"):
        await unpaid.credit_and_refund()
    assert await unpaid.notes() == 0
    await unpaid.pay()
    (payment,) = await unpaid.rows("SELECT payment_id FROM payments WHERE invoice_id = %s", unpaid.invoice_id)
    await unpaid.payments.ask_refund(
        payment["payment_id"], amount=Decimal("100.00"), reason="by hand", key="k", requested_by="anna"
    )
    with pytest.raises(InvalidInputError, match="do not hold"):
        await unpaid.credit_and_refund("62.70")
    assert (await unpaid.notes(), await unpaid.credit_left()) == (0, 0)
    # The same key is free for the same wish without the refund: nothing of the first was kept.
    wish = {"amount": Decimal("62.70"), "lines": {}, "reason": "sorry", "key": f"{unpaid.tenant}-k"}
    note = await unpaid.invoices.credit(unpaid.number, **wish)
    assert (note["total"], await unpaid.credit_left()) == ("-62.70", Decimal("62.70"))
    with pytest.raises(ConflictError):
        await unpaid.credit_and_refund("62.70")


async def test_a_refund_that_fails_is_owed_and_tried_again_or_given_as_a_credit(
    desk: Desk, pool: Pool, standins: Standins
) -> None:
    scene = await scene_with(desk, pool, "pm_card_refundFail")
    await scene.pay()
    made = await scene.credit_and_refund()
    await scene.turn()
    (refund,) = await scene.rows("SELECT provider_reference FROM refunds WHERE invoice_id = %s", scene.invoice_id)
    standins.move_refund(refund["provider_reference"])
    await scene.turn()
    owed = await scene.owed()
    assert [(one["number"], one["owed"], one["status"]) for one in owed] == [(made["number"], "125.40", "owed")]
    assert (await scene.balance("refunds"), await scene.credit_left()) == (Decimal("-125.40"), 0)
    same = await scene.credit_and_refund()
    assert (same["refund"]["status"], len(same["refund"]["refunds"])) == ("owed", 1), "the same key tries nothing again"

    tried = await scene.payments.refund_note(made["number"], requested_by="ben")
    assert (tried["status"], [one["status"] for one in tried["refunds"]]) == ("pending", ["failed", "pending"])
    assert (await scene.payments.refund_note(made["number"], requested_by="ben"))["refunds"] == tried["refunds"]
    with pytest.raises(ConflictError, match="under way"):
        await scene.payments.credit_note_after_all(made["number"])
    await scene.turn()
    (_, second) = await scene.rows(
        "SELECT provider_reference FROM refunds WHERE invoice_id = %s ORDER BY created_at", scene.invoice_id
    )
    standins.move_refund(second["provider_reference"])
    await scene.turn()

    for _ in range(2):
        kept = await scene.payments.credit_note_after_all(made["number"])
        assert (kept["status"], kept["owed"], kept["credited"]) == ("done", "0.00", "125.40")
    assert (await scene.credit_left(), await scene.balance("refunds")) == (Decimal("125.40"), 0)
    assert await scene.owed() == []
    assert (await scene.payments.refund_note(made["number"], requested_by="ben"))["status"] == "done"


async def test_a_note_whose_credit_is_unused_can_be_refunded_later(scene: Scene, standins: Standins) -> None:
    wish = {"lines": {}, "reason": "sorry"}
    first = await scene.invoices.credit(scene.number, amount=Decimal("20.00"), key=f"{scene.tenant}-1", **wish)
    used = await scene.invoices.credit(scene.number, amount=Decimal("30.00"), key=f"{scene.tenant}-2", **wish)
    assert await scene.credit_left() == 50
    with pytest.raises(MeterbookError, match="is refunded"):
        await scene.payments.find_note_refund(first["number"])
    done = await scene.payments.refund_note(first["number"], requested_by="anna")
    assert (done["amount"], await scene.credit_left()) == ("20.00", 30)
    # The next invoice draws 10.00 of the other credit: what was used is not given back twice.
    items = [{"description": "More", "unit_amount": Decimal("10.00")}]
    await scene.invoices.sell_once(scene.tenant, items, key=f"more-{scene.tenant}")
    assert await scene.credit_left() == 20
    with pytest.raises(ConflictError, match="has been used"):
        await scene.payments.refund_note(used["number"], requested_by="anna")
    await scene.turn()
    assert standins.ledger()[0]["amount_refunded"] == 2_000
    assert (await scene.balance("refunds"), await scene.balance("customer_credit")) == (0, Decimal("-20.00"))


async def test_over_http_and_by_command(
    scene: Scene, settings: Settings, standins: Standins, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = Fakes()
    fakes.invoice_desk = scene.invoices
    dependencies = fakes.dependencies()
    app = create_app(type(dependencies)(**{**vars(dependencies), "payments": scene.payments}))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid/api/v1") as client:
        url, body = f"/invoices/{scene.number}/credit-notes", {"reason": "sorry", "amount": "5.40", "refund": True}
        assert (await client.post(url, json=body)).json()["code"] == "missing_idempotency_key"
        made = [await client.post(url, json=body, headers={"Idempotency-Key": scene.tenant}) for _ in range(2)]
        assert [(one.status_code, one.json()["refund"]["status"]) for one in made] == [(201, "pending")] * 2
        number = made[0].json()["number"]
        await scene.turn()
        assert (await client.get(f"/credit-notes/{number}/refund")).json()["status"] == "done"
        assert (await client.post(f"/credit-notes/{number}/refund")).json()["status"] == "done"
        owed = (await client.get("/refunds/owed")).json()["data"]
        assert scene.tenant not in {one["tenant_id"] for one in owed}
        assert (await client.get("/credit-notes/MB-CN-1/refund")).status_code == 404

    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))

    def invoke(app: typer.Typer, *arguments: str, obj: Any = None) -> Any:
        return CliRunner().invoke(app, list(arguments), obj=obj)

    given = ("credit", scene.number, "--reason", "sorry", "--amount", "20.00", "--refund", "--by", "anna")
    refused = await asyncio.to_thread(invoke, invoice_app, *given)
    assert isinstance(refused.exception, UnavailableError), "only where payments are at hand"
    refunds = NoteRefundDesk(scene.desk.clock)
    done = [await asyncio.to_thread(invoke, invoice_app, *given, obj=refunds) for _ in range(2)]
    assert [one.exit_code for one in done] == [0, 0], done[0].output
    assert "20.00 USD to be refunded: pending" in done[1].output
    await scene.turn()
    assert standins.ledger()[0]["amount_refunded"] == 2_540
    monkeypatch.setattr("payments.payment_commands.load_settings", lambda: settings)
    owed = await asyncio.to_thread(invoke, payment_app, "refunds-owed")
    assert (owed.exit_code, number in owed.output) == (0, False)
    shown = await asyncio.to_thread(invoke, payment_app, "refund-note", number, "--by", "anna")
    assert f"{number}  5.40 USD  done" in shown.output
