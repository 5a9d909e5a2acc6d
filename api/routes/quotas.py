"""Live usage: `GET /usage/current`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.dependencies import Dependencies
from api.domain.quota_answer import answer_usage
from api.problems import respond_json
from core.calendar import Calendar
from core.errors import NotFoundError
from core.ids import TENANT_PATTERN
from core.meters import Registry
from quotas.domain.entitlement import Entitlement
from quotas.domain.span import SPAN_PATTERN, Span, periods_of
from quotas.ports import TenantBook

TENANT = f"^{TENANT_PATTERN.pattern}$"


async def find_registry(dependencies: Dependencies, tenant: str, meter: str | None = None) -> Registry:
    """Return a registry that knows the tenant, and the meter if one is named; raises `NotFoundError`."""
    registry = await dependencies.registry.current()
    if tenant not in registry.tenants or (meter is not None and meter not in registry.by_id):
        registry = await dependencies.registry.newest()
    if tenant not in registry.tenants:
        raise NotFoundError(f"no tenant {tenant!r}")
    if meter is not None and meter not in registry.by_id:
        raise NotFoundError(f"no meter {meter[:80]!r}")
    return registry


def create_quota_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the route that answers live usage."""
    router = APIRouter(prefix=prefix, tags=["usage"])
    desk = dependencies.quotas

    @router.get("/usage/current")
    async def read_current_usage(
        tenant_id: Annotated[str, Query(pattern=TENANT)],
        meter: Annotated[str | None, Query(max_length=256, description="all meters if absent")] = None,
        period: Annotated[
            str,
            Query(
                pattern=SPAN_PATTERN,
                description="current_month, current_year, billing_period, rolling:24h, rolling:7d (1 to 744 hours),"
                " or a year, month, hour, or the first day of a billing period",
            ),
        ] = "current_month",
        cost: Annotated[bool, Query(description="also what a billing period costs so far")] = False,
    ) -> Response:
        """Return what a tenant has used in a period and what is left: an object with `meter`, else a list in `data`."""
        registry = await find_registry(dependencies, tenant_id, meter)
        calendar = registry.calendar_of(tenant_id)
        span = desk.span(period, calendar)
        meters = [registry.by_id[meter]] if meter is not None else list(registry.meters)
        if meter is not None:
            periods_of(span, meters[0].aggregation)
        readings = await desk.usage(tenant_id, meters, span, calendar)
        book = await desk.entitlements.of_tenant(tenant_id)
        answers = [
            answer_usage(tenant_id, known, span, reading, _limit_of(book, known.meter_id, span, calendar))
            for known, reading in zip(meters, readings, strict=True)
        ]
        if meter is not None:
            return respond_json(answers[0])
        answer: dict[str, Any] = {"tenant_id": tenant_id, "period": span.name, "data": answers}
        if cost and dependencies.costs is not None:
            answer["cost"] = await dependencies.costs.cost(tenant_id, span.name)
        return respond_json(answer)

    return router


def _limit_of(book: TenantBook, meter: str, span: Span, calendar: Calendar) -> Entitlement | None:
    """Return the entitlement that limits a meter, if it counts such a span."""
    try:
        entitlement = book.of_meter(meter)
    except NotFoundError:
        return None
    counts = entitlement.span(calendar, span.window.end if span.kind == "rolling" else span.window.start)
    return entitlement if counts.window == span.window else None
