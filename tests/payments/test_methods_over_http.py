"""Saved methods over HTTP, at Stripe's stand-in: set up, listed, made the default, removed; card numbers nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from api.application import create_app
from payments.method_desk import MethodDesk, open_method_desk
from runtime.postgres import Pool
from runtime.settings import Settings
from tests.api.conftest import Fakes
from tests.api.test_bad_input import assert_refused
from tests.payments.conftest import Books
from tests.payments.desk import Desk
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
URL = "/api/v1/payment-methods"


@pytest.fixture
async def methods(settings: Settings, pool: Pool) -> AsyncIterator[MethodDesk]:
    paypal = {"paypal_client_id": "id", "paypal_client_secret": "secret", "payment_return_url": "https://x.example"}
    async with open_method_desk(Settings(**{**settings.model_dump(), **paypal}), pool) as desk:
        yield desk


@pytest.fixture
async def client(methods: MethodDesk) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(replace(Fakes().dependencies(), methods=methods))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        yield client


async def listed(client: httpx2.AsyncClient, tenant: str) -> list[tuple[str, str, bool]]:
    found = (await client.get(URL, params={"tenant_id": tenant})).json()["data"]
    return sorted((one["provider"], one["last4"], one["is_default"]) for one in found)


async def test_a_method_is_set_up_in_the_providers_form(
    client: httpx2.AsyncClient, desk: Desk, books: Books, standins: Standins
) -> None:
    tenant = await books.add_tenant(method=None)
    assert await listed(client, tenant) == []
    body = {"tenant_id": tenant, "kinds": ["card"]}
    assert_refused(await client.post(f"{URL}/setups", json=body), 422, "missing_idempotency_key")
    begun = [await client.post(f"{URL}/setups", json=body, headers={"Idempotency-Key": tenant}) for _ in range(2)]
    assert [one.status_code for one in begun] == [201, 201], begun[0].text
    setup = begun[0].json()
    assert (begun[1].json(), set(setup)) == (setup, {"setup", "client_secret"})
    standins.complete_setup(setup["setup"], "pm_card_visa")
    await desk.catch_up()
    assert await listed(client, tenant) == [("stripe", "4242", True)]


async def test_methods_are_saved_made_the_default_and_removed(client: httpx2.AsyncClient, books: Books) -> None:
    tenant = await books.add_tenant(method=None)
    saved = [
        (await client.post(URL, json={"tenant_id": tenant, "method": method})).json()["method_reference"]
        for method in ("pm_card_visa", "pm_card_mastercard")
    ]
    assert await listed(client, tenant) == [("stripe", "4242", False), ("stripe", "4444", True)]
    for _ in range(2):
        default = await client.post(f"{URL}/{saved[0]}/default", json={"tenant_id": tenant})
        assert (default.status_code, default.json()["method_reference"]) == (200, saved[0])
    by_paypal = await client.post(URL, json={"tenant_id": tenant, "provider": "paypal"})
    assert by_paypal.json()["method_reference"] == "approval"
    assert await listed(client, tenant) == [("paypal", "", True), ("stripe", "4242", False), ("stripe", "4444", False)]
    assert (await client.delete(f"{URL}/approval", params={"tenant_id": tenant, "provider": "paypal"})).is_success

    of = {"params": {"tenant_id": tenant}}
    assert_refused(await client.delete(f"{URL}/{saved[0]}", **of), 409, "default_method")
    other = await books.add_tenant()
    strange = await client.delete(f"{URL}/{saved[1]}", params={"tenant_id": other})
    assert_refused(strange, 404, "not_found")
    assert (await client.delete(f"{URL}/{saved[1]}", **of)).status_code == 204
    assert_refused(await client.delete(f"{URL}/{saved[1]}", **of), 404, "not_found")
    # The last one may go.
    assert (await client.delete(f"{URL}/{saved[0]}", **of)).status_code == 204
    assert await listed(client, tenant) == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"method": "pm_nothing"}, 422, "resource_missing"),
        ({"method": "pm_card_chargeDeclined"}, 422, "card_declined"),
        ({"method": "4242 4242 4242 4242"}, 422, "card_number"),
        ({}, 422, "missing_method"),
        ({"provider": "cheque"}, 422, "invalid_parameter"),
        ({"method": "pm_card_visa", "tenant_id": "nobody"}, 404, "not_found"),
        ({"method": "pm_card_visa", "card": "4242424242424242"}, 422, "invalid_parameter"),
    ],
)
async def test_what_cannot_be_saved_is_refused(
    body: dict[str, Any], status: int, code: str, client: httpx2.AsyncClient, books: Books
) -> None:
    tenant = await books.add_tenant(method=None)
    answer = await client.post(URL, json={"tenant_id": tenant, **body})
    assert_refused(answer, status, code)
    assert "4242" not in answer.text
    assert await listed(client, tenant) == []


async def test_a_provider_that_is_away_or_not_set_up_is_503(
    client: httpx2.AsyncClient, books: Books, pool: Pool, standins: Standins, settings: Settings
) -> None:
    tenant = await books.add_tenant()
    standins.fail_stripe("unavailable", count=3)
    assert_refused(await client.get(URL, params={"tenant_id": tenant}), 503, "unavailable")
    assert_refused(await client.get(URL, params={"tenant_id": "nobody"}), 404, "not_found")
    app = create_app(replace(Fakes().dependencies(), methods=MethodDesk(pool, {}, Fakes().clock)))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as without:
        body = {"tenant_id": tenant, "method": "pm_card_visa"}
        assert_refused(await without.post(URL, json=body), 503, "unavailable")
        assert_refused(await without.delete(f"{URL}/pm_x", params={"tenant_id": tenant}), 503, "unavailable")
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {path for path in paths if path.startswith(URL)} == {
        URL, f"{URL}/setups", f"{URL}/{{method}}/default", f"{URL}/{{method}}",
    }  # fmt: skip
