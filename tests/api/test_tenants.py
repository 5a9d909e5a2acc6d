"""`/tenants` over HTTP on PostgreSQL: created once, changed, and refused with every fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from api.application import create_app
from core.clock import ManualClock
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.tenant_desk import PostgresTenantDesk
from tests.api.conftest import NOW, Fakes

pytestmark = pytest.mark.integration


@pytest.fixture
async def client(settings: Settings, fakes: Fakes) -> AsyncIterator[httpx2.AsyncClient]:
    async with create_pool(settings, max_size=2) as pool:
        desk = PostgresTenantDesk(pool, ManualClock(NOW))
        app = create_app(replace(fakes.dependencies(), tenants=desk))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as client:
            yield client


def acme(**facts: Any) -> dict[str, Any]:
    return {
        "tenant_id": f"acme-{uuid4().hex[:10]}",
        "name": "Acme SA",
        "email": "billing@acme.example",
        "country": "FR",
        "currency": "EUR",
        "vat_number": "fr 40 303 265 045",
        "postal_code": "75002",
        **facts,
    }


async def test_a_tenant_is_created_once_read_and_changed(client: httpx2.AsyncClient) -> None:
    wanted = acme()
    created = await client.post("/api/v1/tenants", json=wanted)
    assert (created.status_code, created.json()["vat_number"]) == (201, "FR40303265045")
    assert (await client.post("/api/v1/tenants", json=wanted)).status_code == 200
    other = await client.post("/api/v1/tenants", json={**wanted, "name": "Other"})
    assert (other.status_code, other.json()["code"]) == (409, "tenant_exists")
    path = f"/api/v1/tenants/{wanted['tenant_id']}"
    changed = await client.patch(path, json={"country": "US", "state": "CA", "vat_number": ""})
    assert changed.status_code == 200
    found = (await client.get(path)).json()
    assert (found["country"], found["state"], found["vat_number"], found["vat_valid"]) == ("US", "CA", "", None)
    assert (found["name"], found["postal_code"], found["is_business"]) == ("Acme SA", "75002", True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vat_number": "DE136695976"}, "vat_number_of_another_country"),
        ({"vat_number": "FR1"}, "malformed_vat_number"),
        ({"country": "US", "state": "ZZ", "vat_number": ""}, "unknown_state"),
        ({"currency": "XAU"}, "unknown_currency"),
        ({"tenant_id": "../etc"}, "invalid_tenant_id"),
    ],
)
async def test_wrong_particulars_are_a_problem_with_their_code(
    client: httpx2.AsyncClient, change: dict[str, Any], code: str
) -> None:
    refused = await client.post("/api/v1/tenants", json={**acme(), **change})
    assert refused.status_code == 422
    assert code in {fault["code"] for fault in refused.json()["errors"]}


async def test_a_refused_change_changes_nothing(client: httpx2.AsyncClient) -> None:
    wanted = acme()
    await client.post("/api/v1/tenants", json=wanted)
    path = f"/api/v1/tenants/{wanted['tenant_id']}"
    before = (await client.get(path)).json()
    for change in ({"vat_number": "x"}, {"is_business": False}, {"currency": "USD"}, {"name": 7}, {"nexus": "CA"}):
        assert (await client.patch(path, json=change)).status_code == 422
    assert (await client.get(path)).json() == before
    assert (await client.patch("/api/v1/tenants/nobody", json={"name": "X"})).status_code == 404
    assert (await client.get("/api/v1/tenants/nobody")).status_code == 404
