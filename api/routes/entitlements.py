"""What a tenant may use: `GET /entitlements/{tenant}`, `GET /entitlements/{tenant}/{feature}`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from api.dependencies import Dependencies
from api.domain.quota_answer import answer_entitlement, answer_standing
from api.problems import respond_json
from api.routes.quotas import TENANT, find_registry
from core.meters import Registry
from quotas.domain.entitlement import Entitlement
from quotas.ports import TenantBook


def create_entitlement_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes that answer for entitlements."""
    router = APIRouter(prefix=prefix, tags=["entitlements"])
    desk = dependencies.quotas

    @router.get("/entitlements/{tenant_id}/{feature}")
    async def read_entitlement(
        tenant_id: Annotated[str, Path(pattern=TENANT)], feature: Annotated[str, Path(max_length=256)]
    ) -> Response:
        """Return whether a tenant may use a feature now, what is left, and which limit and grants give it.

        Without access, `reason` says why: `account_suspended`, `account_past_due`, `limit_reached` or `not_given`.
        """
        registry = await find_registry(dependencies, tenant_id)
        book = await desk.entitlements.of_tenant(tenant_id)
        return respond_json(await _answer(book, book.of_feature(feature), tenant_id, registry))

    @router.get("/entitlements/{tenant_id}")
    async def list_entitlements(tenant_id: Annotated[str, Path(pattern=TENANT)]) -> Response:
        """Return all that a tenant has, with where it stands."""
        registry = await find_registry(dependencies, tenant_id)
        book = await desk.entitlements.of_tenant(tenant_id)
        found = [await _answer(book, each, tenant_id, registry) for each in book.entitlements.values()]
        return respond_json({"tenant_id": tenant_id, "data": found})

    async def _answer(book: TenantBook, entitlement: Entitlement, tenant_id: str, registry: Registry) -> dict[str, Any]:
        meter = entitlement.feature.meter_id
        if meter is None:
            return answer_entitlement(tenant_id, entitlement, desk.refusal(book, entitlement))
        registry = await find_registry(dependencies, tenant_id, meter)
        known = registry.by_id[meter]
        standing, reserved = await asyncio.gather(
            desk.standing(tenant_id, book, entitlement, registry), desk.reserved(tenant_id, meter)
        )
        span = entitlement.span(registry.calendar_of(tenant_id), dependencies.clock.now())
        refusal = desk.refusal(book, entitlement, standing, reserved)
        return answer_standing(tenant_id, standing, known, span, reserved, refusal)

    return router
