"""Quotas, invoices, webhooks and operations over HTTP, on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import httpx2
import pytest

from api.application import create_app
from api.ports import NotConfirmedError
from core.errors import BrokenInvariantError, Fault, InvalidInputError, UnavailableError
from tests.api.conftest import Fakes
from tests.api.test_bad_input import assert_refused

CURRENT = "/api/v1/usage/current"


async def test_invoices_come_in_pages(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.invoices.invoices = [{"invoice_id": f"inv_{n}", "total": "1.00"} for n in range(3)]
    url = "/api/v1/invoices"
    page = (await client.get(url, params={"tenant_id": "acme", "limit": 2, "status": "paid"})).json()
    assert ([found["invoice_id"] for found in page["data"]], page["has_more"]) == (["inv_0", "inv_1"], True)
    assert fakes.invoices.asked == [{"tenant": "acme", "status": "paid", "limit": 3, "starting_after": None}]
    whole = (await client.get(url, params={"limit": 3, "starting_after": "inv_9"})).json()
    assert (len(whole["data"]), whole["has_more"]) == (3, False)


@pytest.mark.parametrize(
    ("accept", "is_pdf"),
    [
        ("application/pdf", True),
        ("application/pdf, application/json;q=0.5", True),
        ("application/json, application/pdf", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
    ],
)
async def test_an_invoice_is_json_or_pdf_as_asked(
    accept: str, is_pdf: bool, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    fakes.invoices.invoices = [{"invoice_id": "inv_1", "total": "1.00"}]
    fakes.invoices.documents = {"inv_1": b"%PDF-1.7"}
    answer = await client.get("/api/v1/invoices/inv_1", headers={"accept": accept})
    assert answer.headers["content-type"] == ("application/pdf" if is_pdf else "application/json")
    assert answer.content.startswith(b"%PDF") is is_pdf
    if is_pdf:
        assert answer.headers["content-disposition"] == 'inline; filename="inv_1.pdf"'


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ("document", "application/pdf"),
        ("document?format=pdf", "application/pdf"),
        ("document?format=cii", "application/xml"),
        ("document?format=ubl", "application/xml"),
        ("document?format=docx", None),
    ],
)
async def test_a_document_is_downloaded_in_the_form_that_is_named(
    request_: str, kind: str | None, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    fakes.invoices.invoices = [{"invoice_id": "inv_1"}]
    fakes.invoices.documents = {"inv_1": b"bytes"}
    answer = await client.get(f"/api/v1/invoices/inv_1/{request_}")
    if kind is None:
        assert_refused(answer, 422, "invalid_parameter")
        return
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"bytes", kind)
    assert answer.headers["content-security-policy"] == "sandbox"
    xml = await client.get("/api/v1/invoices/inv_1", headers={"accept": "application/xml"})
    assert xml.headers["content-type"] == "application/xml"


async def test_a_document_that_is_not_rendered_yet_says_so(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.invoices.invoices = [{"invoice_id": "inv_1"}]
    answer = await client.get("/api/v1/invoices/inv_1", headers={"accept": "application/pdf"})
    assert_refused(answer, 404, "document_not_ready")


@pytest.mark.parametrize("url", ["/api/v1/webhooks/stripe", "/webhooks/stripe"])
async def test_a_webhooks_raw_bytes_are_handed_over(url: str, client: httpx2.AsyncClient, fakes: Fakes) -> None:
    body = b'{ "id" :"evt_1" }'
    answer = await client.post(url, content=body, headers={"stripe-signature": "t=1,v1=aa"})
    assert answer.status_code == 200
    assert fakes.webhooks.received == [(body, "t=1,v1=aa")]
    await client.post(url, content=body)
    assert fakes.webhooks.received[1] == (body, None)


async def test_a_webhook_that_is_not_signed_is_400_and_an_outage_503(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.webhooks.failure = InvalidInputError([Fault("invalid_signature", "does not fit")])
    assert_refused(await client.post("/api/v1/webhooks/stripe", content=b"{}"), 400, "invalid_signature")
    fakes.webhooks.failure = UnavailableError("the inbox is away")
    assert_refused(await client.post("/api/v1/webhooks/stripe", content=b"{}"), 503, "unavailable")


async def test_a_paypal_webhook_goes_on_with_its_headers_and_nowhere_without_paypal(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    headers = {"PAYPAL-TRANSMISSION-ID": "1-2"}
    assert_refused(await client.post("/webhooks/paypal", content=b"{}", headers=headers), 404, "not_found")
    taken: list[tuple[bytes, str | None]] = []

    class Receiver:
        async def receive(self, body: bytes, headers: Mapping[str, str]) -> None:
            taken.append((body, headers.get("paypal-transmission-id")))

    app = create_app(replace(fakes.dependencies(), paypal_webhooks=Receiver()))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as other:
        for url in ("/api/v1/webhooks/paypal", "/webhooks/paypal"):
            assert (await other.post(url, content=b'{ "id" : 1}', headers=headers)).status_code == 200
    assert taken == [(b'{ "id" : 1}', "1-2")] * 2


async def test_health_asks_nobody_and_ready_names_what_is_down(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    async def up() -> None:
        return None

    async def down() -> None:
        raise OSError("refused")

    async def hangs() -> None:
        await asyncio.Event().wait()

    fakes.checks.update({"redis": up, "postgres": up})
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"redis": "up", "postgres": "up"})
    fakes.checks.update({"kafka": down, "clickhouse": hangs})
    problem = assert_refused(await client.get("/ready"), 503, "not_ready")
    assert problem["checks"] == {"redis": "up", "postgres": "up", "kafka": "down", "clickhouse": "down"}
    assert (await client.get("/health")).json() == {"status": "ok"}


async def test_what_broke_here_is_500_without_its_inside(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    for failure in (RuntimeError("password=hunter2"), BrokenInvariantError("password=hunter2")):
        fakes.quotas.failure = failure
        answer = await client.get(CURRENT, params={"tenant_id": "acme"})
        assert_refused(answer, 500, "internal_error")
        assert "hunter2" not in answer.text


async def test_metrics_count_by_route_and_a_scanner_adds_no_label(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    await client.get("/health")
    await client.get("/api/v1/invoices/inv_1")
    await client.get("/wp-admin/setup.php")
    await client.request("PROPFIND", "/x")
    fakes.publisher.failure = NotConfirmedError()
    text = (await client.get("/metrics")).text
    assert 'billing_api_requests_total{endpoint="/health",method="GET",status="200"}' in text
    assert 'endpoint="/api/v1/invoices/{invoice_id}",method="GET",status="404"' in text
    assert 'endpoint="unmatched",method="GET",status="404"' in text
    assert "wp-admin" not in text
    assert "PROPFIND" not in text


async def test_openapi_describes_every_endpoint(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths) == {
        "/api/v1/payments", "/api/v1/payments/{payment_id}", "/api/v1/payments/{payment_id}/refunds",
        "/api/v1/disputes", "/api/v1/refunds/owed",
        "/api/v1/credit-notes/{reference}/refund", "/api/v1/credit-notes/{reference}/credit",
        "/api/v1/payment-methods", "/api/v1/payment-methods/setups", "/api/v1/payment-methods/{method}",
        "/api/v1/payment-methods/{method}/default",
        "/api/v1/bank/statements", "/api/v1/bank/proposals", "/api/v1/bank/accounts",
        "/api/v1/bank/entries/{entry}/confirm", "/api/v1/bank/entries/{entry}/reject",
        "/api/v1/bank/entries/{entry}/reopen",
        "/api/v1/usage", "/api/v1/usage/batch", "/api/v1/usage/current", "/api/v1/entitlements/{tenant_id}",
        "/api/v1/entitlements/{tenant_id}/{feature}", "/api/v1/grants", "/api/v1/grants/{grant_id}/void",
        "/api/v1/reservations", "/api/v1/reservations/{reservation_id}", "/api/v1/reservations/{reservation_id}/commit",
        "/api/v1/reservations/{reservation_id}/release", "/api/v1/invoices",
        "/api/v1/invoices/{reference}/credit-notes", "/api/v1/invoices/{reference}/void",
        "/api/v1/invoices/{reference}/write-off", "/api/v1/invoices/{reference}/reissue",
        "/api/v1/invoices/{reference}/deliveries",
        "/api/v1/invoices/{invoice_id}", "/api/v1/invoices/{invoice_id}/document", "/api/v1/webhooks/stripe",
        "/health", "/ready",
        "/api/v1/webhooks/paypal",
        "/api/v1/usage/summary", "/api/v1/usage/{tenant_id}",
        "/api/v1/usage/void", "/api/v1/usage/amend", "/api/v1/usage/backfill",
        "/api/v1/dead-letters", "/api/v1/dead-letters/counts", "/api/v1/dead-letters/{topic}/{partition}/{offset}",
        "/api/v1/dead-letters/{topic}/{partition}/{offset}/replay",
        "/api/v1/dead-letters/{topic}/{partition}/{offset}/discard",
        "/api/v1/alerts", "/api/v1/alerts/{alert_id}/resend", "/api/v1/alert-rules", "/api/v1/alert-rules/{rule_id}",
        "/api/v1/webhook-endpoints", "/api/v1/webhook-endpoints/{endpoint_id}",
        "/api/v1/webhook-endpoints/{endpoint_id}/rotate-secret",
    }  # fmt: skip
    assert "application/cloudevents+json" in paths["/api/v1/usage"]["post"]["requestBody"]["content"]
    assert (await client.get("/docs")).status_code == 200


async def test_every_answer_has_its_own_request_id(client: httpx2.AsyncClient) -> None:
    ids = {(await client.get(url)).headers["request-id"] for url in ("/health", "/health", "/nothing")}
    assert len(ids) == 3
