"""Documents and their deliveries in memory and in PostgreSQL behave alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from invoicing.adapters.postgres_documents import PostgresDocuments
from invoicing.domain.delivery import Plan
from invoicing.ports import Document, StoredSnapshot
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.invoicing.documents.memory import MemoryDocuments
from tests.invoicing.scene import at

NOW = at("2026-11-03")
LATER = NOW + timedelta(minutes=5)
SNAPSHOT = {"invoice": {"number": "MB-1"}, "name": "Ünï 🚀"}


@dataclass
class UnderTest:
    documents: MemoryDocuments | PostgresDocuments
    invoice_id: str
    settings: Settings | None

    async def make_void(self) -> None:
        if isinstance(self.documents, MemoryDocuments):
            stored = self.documents.snapshots[self.invoice_id]
            self.documents.snapshots[self.invoice_id] = StoredSnapshot(
                stored.invoice_id, stored.tenant_id, stored.number, stored.snapshot, stored.sha256, "void"
            )
            return
        assert self.settings is not None
        async with await psycopg.AsyncConnection.connect(self.settings.postgres) as connection:
            await connection.execute("UPDATE invoices SET status = 'void' WHERE invoice_id = %s", (self.invoice_id,))


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.integration)])
def engines(request: pytest.FixtureRequest) -> Settings | None:
    return request.getfixturevalue("settings") if request.param == "real" else None


@pytest.fixture
async def under_test(engines: Settings | None) -> AsyncIterator[UnderTest]:
    invoice_id = f"inv_{uuid4().hex}"
    if engines is None:
        yield UnderTest(
            MemoryDocuments(StoredSnapshot(invoice_id, "acme", invoice_id, SNAPSHOT, "f" * 64)), invoice_id, None
        )
        return
    async with opened(engines, invoice_id) as documents:
        yield UnderTest(documents, invoice_id, engines)


@asynccontextmanager
async def opened(settings: Settings, invoice_id: str) -> AsyncIterator[PostgresDocuments]:
    await apply_files(settings, shipped_files())
    tenant_id = f"documents-{uuid4().hex[:10]}"
    tenant = Tenant(tenant_id, "Acme", "billing@example.com", "DE", "USD", "1 Road\nTown")
    subscription, _ = await add_tenant(settings, tenant, "lite", overrides={}, started_at=at("2026-10-05"))
    async with create_pool(settings, max_size=3) as pool:
        async with pool.connection() as connection:
            # Nothing else may be due while deliveries are looked for.
            await connection.execute("UPDATE document_deliveries SET status = 'refused' WHERE status = 'pending'")
            await connection.execute("UPDATE document_resends SET status = 'refused' WHERE status = 'pending'")
            await connection.execute(
                "INSERT INTO invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence,"
                " status, number, currency, subtotal, total, issued_at, due_at, snapshot, snapshot_sha256,"
                " engine_version) VALUES (%s, %s, %s, %s, %s, 1, 'finalized', %s, 'USD', 1, 1, %s, %s, %s, %s, 't')",
                (
                    invoice_id, tenant_id, subscription.subscription_id, at("2026-10-05"), at("2026-11-01"), invoice_id,
                    NOW, NOW, psycopg.types.json.Jsonb(SNAPSHOT), "f" * 64,
                ),
            )  # fmt: skip
        yield PostgresDocuments(pool)


def document(under: UnderTest, media_type: str = "application/pdf", sha256: str = "a" * 64) -> Document:
    return Document(under.invoice_id, media_type, f"/documents/{media_type}", sha256, 7)


async def test_a_snapshot_comes_with_the_invoices_status(under_test: UnderTest) -> None:
    stored = await under_test.documents.snapshot(under_test.invoice_id)
    assert stored is not None
    assert (stored.snapshot, stored.sha256, stored.status) == (SNAPSHOT, "f" * 64, "finalized")
    await under_test.make_void()
    stored = await under_test.documents.snapshot(under_test.invoice_id)
    assert stored is not None
    assert stored.status == "void"
    assert await under_test.documents.snapshot("inv_unknown") is None


async def test_documents_are_recorded_by_media_type_and_replaced(under_test: UnderTest) -> None:
    documents = under_test.documents
    assert await documents.documents(under_test.invoice_id) == {}
    pdf, xml = document(under_test), document(under_test, "application/xml;syntax=ubl")
    await documents.record([pdf, xml], send_to=None, now=NOW)
    changed = document(under_test, sha256="b" * 64)
    await documents.record([changed], send_to=None, now=LATER)
    assert await documents.documents(under_test.invoice_id) == {pdf.media_type: changed, xml.media_type: xml}
    async with documents.hold_due(LATER) as held:
        assert held is None, "nobody asked for mail"


async def test_a_delivery_is_claimed_once_held_by_one_and_remembers_its_tries(under_test: UnderTest) -> None:
    documents = under_test.documents
    for _ in range(2):
        await documents.record([document(under_test)], send_to="ap@acme.example", now=NOW)
    async with documents.hold_due(NOW - timedelta(seconds=1)) as early:
        assert early is None
    async with documents.hold_due(NOW) as held:
        assert held is not None
        delivery = held.delivery
        assert (delivery.invoice_id, delivery.address) == (under_test.invoice_id, "ap@acme.example")
        assert (delivery.attempts, delivery.created_at, delivery.status) == (0, NOW, "finalized")
        assert delivery.documents == {"application/pdf": document(under_test)}
        if under_test.settings is not None:
            async with documents.hold_due(NOW) as second:
                assert second is None, "a row that is held is nobody else's"
        await held.record(Plan("pending", LATER), error="421 later\0", now=NOW)
    async with documents.hold_due(NOW) as held:
        assert held is None
    async with documents.hold_due(LATER) as held:
        assert held is not None
        assert held.delivery.attempts == 1
        await held.record(Plan("sent", LATER), error="", now=LATER)
    await documents.record([document(under_test)], send_to="ap@acme.example", now=LATER)
    async with documents.hold_due(LATER + timedelta(days=9)) as held:
        assert held is None, "sent once is sent"


async def test_a_wish_to_send_once_more_is_written_down_once_and_tried_like_a_delivery(under_test: UnderTest) -> None:
    documents, invoice_id = under_test.documents, under_test.invoice_id
    await documents.record([document(under_test)], send_to=None, now=NOW)
    resend_id = f"resend-{invoice_id}"
    for address in ("ap@acme.example", "other@acme.example"):
        wish = await documents.add_resend(resend_id, invoice_id, address, NOW)
        assert (wish.address, wish.status, wish.attempts, wish.created_at) == ("ap@acme.example", "pending", 0, NOW)
    async with documents.hold_due(NOW) as held:
        assert held is not None
        assert (held.delivery.resend_id, held.delivery.address) == (resend_id, "ap@acme.example")
        if under_test.settings is not None:
            async with documents.hold_due(NOW) as second:
                assert second is None, "a row that is held is nobody else's"
        await held.record(Plan("pending", LATER), error="421 later", now=NOW)
    wish = await documents.add_resend(resend_id, invoice_id, "ap@acme.example", LATER)
    assert (wish.attempts, wish.last_error, wish.sent_at) == (1, "421 later", None)
    async with documents.hold_due(LATER) as held:
        assert held is not None
        await held.record(Plan("sent", LATER), error="", now=LATER)
    wish = await documents.add_resend(resend_id, invoice_id, "ap@acme.example", LATER)
    assert (wish.status, wish.sent_at, wish.last_error) == ("sent", LATER, "")
    async with documents.hold_due(LATER + timedelta(days=9)) as held:
        assert held is None


async def test_a_document_is_found_by_number_and_by_id(under_test: UnderTest) -> None:
    stored = await under_test.documents.find(under_test.invoice_id)
    assert stored is not None
    assert stored.snapshot == SNAPSHOT
    assert await under_test.documents.find(stored.number) == stored
    assert await under_test.documents.find("MB-unknown") is None


async def test_what_was_recorded_before_is_kept_beside(under_test: UnderTest) -> None:
    documents = under_test.documents
    for sha256 in ("a" * 64, "a" * 64, "b" * 64):
        await documents.record([document(under_test, sha256=sha256)], send_to=None, now=NOW)
    assert await replaced_digests(under_test) == ["a" * 64]


async def replaced_digests(under_test: UnderTest) -> list[str]:
    if isinstance(under_test.documents, MemoryDocuments):
        return [one.sha256 for one in under_test.documents.replaced]
    assert under_test.settings is not None
    async with await psycopg.AsyncConnection.connect(under_test.settings.postgres) as connection:
        query = "SELECT sha256 FROM replaced_documents WHERE invoice_id = %s"
        return [row[0] for row in await (await connection.execute(query, (under_test.invoice_id,))).fetchall()]
