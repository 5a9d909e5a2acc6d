"""Reservations for callers that must not overshoot: hold, then commit or release."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.domain.quota_answer import answer_reservation
from api.json_body import read_json, read_key
from api.problems import respond_json
from api.routes.quotas import TENANT, find_registry
from quotas.domain.reservation import SETTLE_SECONDS_DEFAULT, HoldRequest
from quotas.reserve_usage import find_own

DEFAULT_TTL_SECONDS = 60


class EventBody(msgspec.Struct, forbid_unknown_fields=True):
    """The identity of the usage event that will come of a reservation."""

    source: str
    id: str


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be held; without `event` we choose the identity, and the answer tells it."""

    tenant_id: str
    meter: str
    amount: Decimal
    ttl_seconds: int = DEFAULT_TTL_SECONDS
    event: EventBody | None = None


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    """How much was used, and how long to wait for its event."""

    tenant_id: str
    amount: Decimal
    settle_seconds: int = SETTLE_SECONDS_DEFAULT


class ReleaseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whose reservation is given up."""

    tenant_id: str


def create_reservation_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of reservations."""
    router = APIRouter(prefix=f"{prefix}/reservations", tags=["reservations"])
    desk = dependencies.quotas

    @router.post("", status_code=201)
    async def hold(request: Request) -> Response:
        """Hold an amount of a meter: 201, or 409 `quota_exceeded` if a hard limit has no room for it.

        The same Idempotency-Key is the same hold. The usage event must come with the identity in `event`.
        """
        key = read_key(request) or dependencies.make_id()
        body = await read_json(request, HoldBody)
        registry = await find_registry(dependencies, body.tenant_id, body.meter)
        event = body.event or EventBody("", "")
        wanted = HoldRequest(body.tenant_id, body.meter, body.amount, body.ttl_seconds, key, event.source, event.id)
        held = await desk.hold(wanted, registry)
        return respond_json(answer_reservation(held.reservation), 201)

    @router.post("/{reservation_id}/commit")
    async def commit(reservation_id: str, request: Request) -> Response:
        """Say how much was used, at most what was held; it counts until its event is in the live total."""
        body = await read_json(request, CommitBody)
        return respond_json(
            answer_reservation(
                await desk.commit(
                    reservation_id, body.amount, tenant=body.tenant_id, settle_seconds=body.settle_seconds
                )
            )
        )

    @router.post("/{reservation_id}/release")
    async def release(reservation_id: str, request: Request) -> Response:
        """Give up what is held; twice is once."""
        body = await read_json(request, ReleaseBody)
        return respond_json(answer_reservation(await desk.release(reservation_id, tenant=body.tenant_id)))

    @router.get("/{reservation_id}")
    async def read(reservation_id: str, tenant_id: Annotated[str, Query(pattern=TENANT)]) -> Response:
        """Return a reservation as it is written down."""
        return respond_json(answer_reservation(await find_own(reservation_id, tenant_id, desk.reservations)))

    return router
