"""Issuing and changing invoices over HTTP: what reaches the desk, what comes back, and what is refused before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from api.application import create_app
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from tests.api.conftest import Fakes
from tests.api.test_bad_input import assert_refused

URL = "/api/v1/invoices"


@dataclass
class FakeDesk:
    """Remembers what it was asked, and answers it or fails."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    failure: Exception | None = None
    made: list[dict[str, Any]] = field(default_factory=lambda: [{"number": "MB-2026-000001"}])

    def _answer(self, *asked: Any) -> list[dict[str, Any]]:
        self.asked.append(asked)
        if self.failure is not None:
            raise self.failure
        return self.made

    async def invoice_now(self, tenant_id: str, period: str) -> list[dict[str, Any]]:
        return self._answer("now", tenant_id, period)

    async def sell_once(self, tenant_id: str, items: Sequence[Mapping[str, Any]], *, key: str) -> dict[str, Any]:
        return self._answer("sell", tenant_id, list(items), key)[0]

    async def credit(
        self, reference: str, *, amount: Decimal | None, lines: dict[int, Decimal | None], reason: str, key: str
    ) -> dict[str, Any]:
        return self._answer("credit", reference, amount, lines, reason, key)[0]

    async def credit_and_refund(
        self,
        reference: str,
        *,
        amount: Decimal | None,
        lines: dict[int, Decimal | None],
        reason: str,
        key: str,
        requested_by: str,
    ) -> dict[str, Any]:
        return self._answer("refund", reference, amount, lines, reason, key, requested_by)[0]

    async def void(self, reference: str, *, reason: str) -> dict[str, Any]:
        return self._answer("void", reference, reason)[0]

    async def write_off(self, reference: str, *, reason: str) -> dict[str, Any]:
        return self._answer("write_off", reference, reason)[0]

    async def reissue(self, reference: str, *, reason: str) -> list[dict[str, Any]]:
        return self._answer("reissue", reference, reason)


@pytest.fixture
def desk(fakes: Fakes) -> FakeDesk:
    desk = FakeDesk()
    fakes.invoice_desk = desk
    return desk


@pytest.fixture
async def client(fakes: Fakes, desk: FakeDesk) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=create_app(fakes.dependencies()), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        yield client


async def test_a_period_is_invoiced_on_demand(client: httpx2.AsyncClient, desk: FakeDesk) -> None:
    answer = await client.post(URL, json={"tenant_id": "acme", "period": "2026-10"})
    assert (answer.status_code, answer.json()) == (201, {"data": [{"number": "MB-2026-000001"}]})
    desk.made = []
    answer = await client.post(URL, json={"tenant_id": "acme", "period": "2026-10"})
    assert (answer.status_code, answer.json()) == (200, {"data": []}), "nothing new is not created"
    assert desk.asked == [("now", "acme", "2026-10")] * 2


async def test_items_are_sold_once_per_key(client: httpx2.AsyncClient, desk: FakeDesk) -> None:
    body = {"tenant_id": "acme", "items": [{"description": "Setup", "unit_amount": "99.90", "quantity": 2}]}
    answer = await client.post(URL, json=body, headers={"Idempotency-Key": "setup-1"})
    assert answer.status_code == 201
    item = {"description": "Setup", "unit_amount": Decimal("99.90"), "quantity": Decimal(2), "unit": ""}
    assert desk.asked == [("sell", "acme", [item], "setup-1")]


async def test_an_invoice_is_credited_voided_written_off_and_reissued(
    client: httpx2.AsyncClient, desk: FakeDesk
) -> None:
    url = f"{URL}/MB-2026-000001"
    body = {"reason": "sorry", "lines": {"2": "1.50", "3": None}}
    answer = await client.post(f"{url}/credit-notes", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201
    for verb in ("void", "write-off", "reissue"):
        assert (await client.post(f"{url}/{verb}", json={"reason": "wrong"})).status_code == 200
    assert desk.asked == [
        ("credit", "MB-2026-000001", None, {2: Decimal("1.50"), 3: None}, "sorry", "k"),
        ("void", "MB-2026-000001", "wrong"),
        ("write_off", "MB-2026-000001", "wrong"),
        ("reissue", "MB-2026-000001", "wrong"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("", {"tenant_id": "acme"}, "invalid_body"),
        ("", {"tenant_id": "acme", "period": "2026-10", "items": []}, "invalid_body"),
        ("", {"tenant_id": "acme", "period": "2026-10", "grace": 1}, "invalid_body"),
        ("", {"tenant_id": "acme", "items": [{"description": "Setup", "unit_amount": "much"}]}, "invalid_body"),
        ("/MB-2026-000001/credit-notes", {"amount": "1"}, "invalid_body"),
        ("/MB-2026-000001/credit-notes", {"reason": "x", "lines": {"two": None}}, "invalid_line"),
        ("/MB-2026-000001/void", {}, "invalid_body"),
        ("/MB%202026/void", {"reason": "x"}, "invalid_parameter"),
    ],
)
async def test_what_makes_no_sense_does_not_reach_the_desk(
    client: httpx2.AsyncClient, desk: FakeDesk, path: str, body: dict[str, Any], code: str
) -> None:
    assert_refused(await client.post(URL + path, json=body), 422, code)
    assert desk.asked == []


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NotFoundError("no invoice"), 404, "not_found"),
        (ConflictError("it is paid"), 409, "conflict"),
        (InvalidInputError([Fault("exceeds_invoice", "too much", "amount")]), 422, "exceeds_invoice"),
    ],
)
async def test_what_the_desk_refuses_keeps_its_code(
    client: httpx2.AsyncClient, desk: FakeDesk, failure: Exception, status: int, code: str
) -> None:
    desk.failure = failure
    assert_refused(await client.post(f"{URL}/x/void", json={"reason": "wrong"}), status, code)


async def test_without_a_desk_nothing_is_changed(fakes: Fakes, client: httpx2.AsyncClient) -> None:
    fakes.invoice_desk = None
    transport = httpx2.ASGITransport(app=create_app(fakes.dependencies()), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as other:
        assert_refused(await other.post(f"{URL}/x/void", json={"reason": "wrong"}), 503, "unavailable")
