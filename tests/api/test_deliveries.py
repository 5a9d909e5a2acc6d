"""Sending a document once more, and looking at a draft, over HTTP: what reaches the clerk and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from api.application import create_app
from api.ports import Document, OnlyADraftError
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from tests.api.conftest import Fakes
from tests.api.test_bad_input import assert_refused

URL = "/api/v1/invoices/MB-2026-000001/deliveries"


@dataclass
class FakeClerk:
    """Remembers what it was asked, and answers it or fails."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    failure: Exception | None = None

    async def resend(self, reference: str, *, to: str | None, key: str) -> dict[str, Any]:
        self.asked.append((reference, to, key))
        if self.failure is not None:
            raise self.failure
        return {"delivery_id": "resend_1", "status": "pending"}

    async def draft_pdf(self, reference: str) -> bytes:
        self.asked.append((reference,))
        return b"%PDF draft"


@pytest.fixture
def clerk(fakes: Fakes) -> FakeClerk:
    fakes.documents = clerk = FakeClerk()
    return clerk


@pytest.fixture
async def client(fakes: Fakes, clerk: FakeClerk) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=create_app(fakes.dependencies()), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        yield client


async def test_a_document_is_sent_once_more_under_a_key(client: httpx2.AsyncClient, clerk: FakeClerk) -> None:
    for body in ({}, {"to": "a@b.example"}):
        answer = await client.post(URL, json=body, headers={"Idempotency-Key": "k1"})
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert clerk.asked == [("MB-2026-000001", None, "k1"), ("MB-2026-000001", "a@b.example", "k1")]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NotFoundError("no invoice"), 404, "not_found"),
        (InvalidInputError([Fault("void_invoice", "gone")]), 422, "void_invoice"),
        (InvalidInputError([Fault("no_address", "none", "to")]), 422, "no_address"),
        (InvalidInputError([Fault("mail_off", "off")]), 422, "mail_off"),
        (ConflictError("other address"), 409, "conflict"),
    ],
)
async def test_what_cannot_be_sent_is_refused(
    client: httpx2.AsyncClient, clerk: FakeClerk, failure: Exception, status: int, code: str
) -> None:
    clerk.failure = failure
    answer = await client.post(URL, json={}, headers={"Idempotency-Key": "k1"})
    assert_refused(answer, status, code)


async def test_without_a_key_or_with_a_strange_body_nothing_is_asked(
    client: httpx2.AsyncClient, clerk: FakeClerk
) -> None:
    assert_refused(await client.post(URL, json={}), 422, "missing_idempotency_key")
    strange = await client.post(URL, json={"cc": "x@y.example"}, headers={"Idempotency-Key": "k1"})
    assert_refused(strange, 422, "invalid_body")
    assert clerk.asked == []


async def test_where_nobody_sends_it_is_said(fakes: Fakes) -> None:
    transport = httpx2.ASGITransport(app=create_app(fakes.dependencies()), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        answer = await client.post(URL, json={}, headers={"Idempotency-Key": "k1"})
    assert_refused(answer, 503, "unavailable")


async def test_a_draft_is_shown_as_a_marked_pdf_that_nobody_keeps(
    client: httpx2.AsyncClient, fakes: Fakes, clerk: FakeClerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def only_a_draft(invoice_id: str, media_type: str) -> Document:
        raise OnlyADraftError(f"{invoice_id} is a draft")

    monkeypatch.setattr(fakes.invoices, "find_document", only_a_draft)
    answer = await client.get("/api/v1/invoices/inv_1/document")
    assert (answer.status_code, answer.content) == (200, b"%PDF draft")
    assert answer.headers["Cache-Control"] == "no-store"
    assert 'filename="inv_1.draft.pdf"' in answer.headers["Content-Disposition"]
    assert "ETag" not in answer.headers
    assert_refused(await client.get("/api/v1/invoices/inv_1/document?format=ubl"), 404, "document_not_ready")
    assert clerk.asked == [("inv_1",)]
