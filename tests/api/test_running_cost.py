"""What a period costs so far, beside live usage, on fakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2

from api.application import create_app
from tests.api.conftest import Fakes

CURRENT = "/api/v1/usage/current"


class MemoryCosts:
    async def cost(self, tenant_id: str, period: str) -> dict[str, Any]:
        return {"tenant_id": tenant_id, "period": period, "totals": {"USD": "5.03"}, "charges": []}


async def test_the_running_cost_comes_when_it_is_asked_for(fakes: Fakes) -> None:
    app = create_app(replace(fakes.dependencies(), costs=MemoryCosts()))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        asked = await client.get(CURRENT, params={"tenant_id": "acme", "cost": "true"})
        assert asked.json()["cost"] == {
            "tenant_id": "acme", "period": "2026-10", "totals": {"USD": "5.03"}, "charges": [],
        }  # fmt: skip
        assert "cost" not in (await client.get(CURRENT, params={"tenant_id": "acme"})).json()
