"""Grants: `POST /grants`, `GET /grants`, `POST /grants/{id}/void`."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.domain.quota_answer import answer_grant
from api.json_body import check_aware, read_json, read_key
from api.problems import respond_json
from api.routes.quotas import TENANT, find_registry
from core.ids import derive_id
from quotas.add_grant import add_grant
from quotas.domain.grant import Grant, Recurrence

DEFAULT_PRIORITY = 100


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked for; `effective_at` is the running hour if absent."""

    tenant_id: str
    feature: str
    amount: Decimal
    priority: int = DEFAULT_PRIORITY
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    recurrence: Recurrence = "none"
    rollover_min: Decimal = Decimal(0)
    rollover_max: Decimal = Decimal(0)
    reason: str = ""


def create_grant_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of grants."""
    router = APIRouter(prefix=prefix, tags=["entitlements"])
    desk = dependencies.quotas

    @router.post("/grants", status_code=201)
    async def create_grant(request: Request) -> Response:
        """Give a tenant an amount of a metered feature on top of its limit; the same Idempotency-Key gives it once."""
        key = read_key(request) or dependencies.make_id()
        body = await read_json(request, GrantBody)
        registry = await find_registry(dependencies, body.tenant_id)
        now = dependencies.clock.now()
        # The name of the grant dates its default: a repetition in the next hour is still the same grant.
        effective_at = body.effective_at or now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        grant = Grant(
            derive_id("grant", body.tenant_id, key),
            body.amount,
            body.priority,
            check_aware(effective_at, "effective_at"),
            None if body.expires_at is None else check_aware(body.expires_at, "expires_at"),
            body.recurrence,
            body.rollover_min,
            body.rollover_max,
            now,
            body.reason,
        )
        made = await add_grant(
            grant,
            tenant=body.tenant_id,
            feature_id=body.feature,
            registry=registry,
            books=desk.entitlements,
            is_dated=body.effective_at is not None,
        )
        return respond_json(answer_grant(body.tenant_id, body.feature, made), 201)

    @router.get("/grants")
    async def list_grants(
        tenant_id: Annotated[str, Query(pattern=TENANT)], feature: Annotated[str | None, Query(max_length=256)] = None
    ) -> Response:
        """Return a tenant's grants that were not voided, oldest first."""
        await find_registry(dependencies, tenant_id)
        found = await desk.entitlements.list_grants(tenant_id, feature)
        return respond_json({"tenant_id": tenant_id, "data": [answer_grant(tenant_id, *each) for each in found]})

    @router.post("/grants/{grant_id}/void")
    async def void_grant(grant_id: str) -> Response:
        """Take a grant back as if it had never been; twice is once."""
        await desk.entitlements.void_grant(grant_id, dependencies.clock.now())
        return respond_json({"grant_id": grant_id, "voided": True})

    return router
