"""`GET /usage/current`: live quotas of a tenant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.dependencies import Dependencies
from api.domain.quota_answer import answer_quota
from api.problems import respond_json
from core.errors import NotFoundError
from core.ids import TENANT_PATTERN
from core.period import month_key

_PERIOD = r"^\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]))?$"


def create_quota_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the route that answers live quotas."""
    router = APIRouter(prefix=prefix, tags=["usage"])

    @router.get("/usage/current")
    async def read_current_usage(
        tenant_id: Annotated[str, Query(pattern=f"^{TENANT_PATTERN.pattern}$")],
        meter: Annotated[str | None, Query(max_length=256, description="all meters if absent")] = None,
        period: Annotated[
            str | None, Query(pattern=_PERIOD, description="a month or hour; this month if absent")
        ] = None,
    ) -> Response:
        """Return what a tenant has used in a period and what is left: an object with `meter`, else a list in `data`."""
        registry = await dependencies.registry.current()
        if tenant_id not in registry.tenants or (meter is not None and meter not in registry.by_id):
            registry = await dependencies.registry.newest()
        if tenant_id not in registry.tenants:
            raise NotFoundError(f"no tenant {tenant_id!r}")
        if meter is not None and meter not in registry.by_id:
            raise NotFoundError(f"no meter {meter[:80]!r}")
        span = period or month_key(dependencies.clock.now())
        meters = [meter] if meter is not None else [known.meter_id for known in registry.meters]
        readings = await dependencies.quotas.read(tenant_id, meters, span)
        limits = await dependencies.limits.limits_of(tenant_id)
        answers = [
            answer_quota(
                tenant=tenant_id,
                meter=name,
                unit=registry.by_id[name].unit,
                period=span,
                reading=reading,
                # Limits are of the month; an hour has none.
                limit=limits.get(name) if len(span) == 7 else None,
            )
            for name, reading in zip(meters, readings, strict=True)
        ]
        return respond_json(
            answers[0] if meter is not None else {"tenant_id": tenant_id, "period": span, "data": answers}
        )

    return router
