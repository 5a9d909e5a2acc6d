"""`GET /usage/{tenant_id}` and `GET /usage/summary`: what was counted, by windows and dimensions, as JSON or CSV."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from api.dependencies import Dependencies
from api.problems import respond_json
from core.csv_text import write_csv
from core.ids import TENANT_PATTERN
from core.meters import Registry

_TENANT = f"^{TENANT_PATTERN.pattern}$"
_AMOUNTS = ("quantity", "events")
Form = Annotated[
    Literal["json", "csv"] | None, Query(alias="format", description="JSON, or CSV as with `Accept: text/csv`")
]
Accept = Annotated[str, Header(include_in_schema=False)]


def create_usage_query_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes that answer questions about usage; to be added after those of fixed paths below `/usage`."""
    router = APIRouter(prefix=prefix, tags=["usage"])

    async def registry_with(tenant: str, meter: str | None) -> Registry:
        registry = await dependencies.registry.current()
        if tenant not in registry.tenants or (meter is not None and meter not in registry.by_id):
            registry = await dependencies.registry.newest()
        return registry

    @router.get("/usage/summary")
    async def summarize_usage(
        tenant_id: Annotated[str, Query(pattern=_TENANT)],
        period: Annotated[
            str | None,
            Query(max_length=13, description="2026-10, 2026, or a billing period by its first day; the present one"),
        ] = None,
        form: Form = None,
        accept: Accept = "",
    ) -> Response:
        """Return the totals of all meters that a tenant used in a period."""
        registry = await registry_with(tenant_id, None)
        found = await dependencies.usage.summarize(registry, tenant=tenant_id, period=period)
        if _wants_csv(form, accept):
            header = ("meter", "aggregation", "unit", *_AMOUNTS)
            return _csv(header, [[row[name] for name in header] for row in found["data"]], f"usage-{tenant_id}", None)
        return respond_json(found)

    @router.get("/usage/{tenant_id}")
    async def query_usage(
        tenant_id: Annotated[str, Path(pattern=_TENANT)],
        meter: Annotated[str, Query(max_length=256)],
        window: Annotated[
            Literal["minute", "hour", "day", "month", "billing_period", "total"],
            Query(description="in the tenant's time zone; at most 10,000 of them"),
        ] = "total",
        start: Annotated[
            str | None,
            Query(
                alias="from", max_length=64, description="a day (its local midnight) or RFC 3339; this month's start"
            ),
        ] = None,
        end: Annotated[str | None, Query(alias="to", max_length=64, description="not included; now if absent")] = None,
        group_by: Annotated[list[str], Query(max_length=20, description="dimensions")] = [],  # noqa: B006 - never changed
        filters: Annotated[
            list[str],
            Query(alias="filter", max_length=200, description="`dimension:value`; several of one dimension allow each"),
        ] = [],  # noqa: B006 - never changed
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
        cursor: Annotated[str | None, Query(max_length=20_000, description="`next_cursor` of the page before")] = None,
        form: Form = None,
        accept: Accept = "",
    ) -> Response:
        """Return a meter's usage, by window and group. Windows without usage are left out.

        As CSV the next page's cursor is in the header `Next-Cursor`.
        """
        registry = await registry_with(tenant_id, meter)
        page = await dependencies.usage.query(
            registry,
            tenant=tenant_id,
            meter=meter,
            window=window,
            start=start,
            end=end,
            group_by=group_by,
            filters=filters,
            limit=limit,
            cursor=cursor,
        )
        if _wants_csv(form, accept):
            return _page_as_csv(page, f"usage-{tenant_id}-{meter}")
        return respond_json(page)

    return router


def _wants_csv(form: str | None, accept: str) -> bool:
    if form is not None:
        return form == "csv"
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    return "text/csv" in kinds and "application/json" not in kinds


def _page_as_csv(page: dict[str, Any], name: str) -> Response:
    dimensions = page["group_by"]
    rows = [
        [row["start"], row["end"], *map(row["dimensions"].get, dimensions), row["quantity"], row["events"]]
        for row in page["data"]
    ]
    return _csv(("start", "end", *dimensions, *_AMOUNTS), rows, name, page["next_cursor"])


def _csv(header: tuple[str, ...], rows: list[list[Any]], name: str, cursor: str | None) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    if cursor is not None:
        headers["Next-Cursor"] = cursor
    text = write_csv(header, [[str(cell) for cell in row] for row in rows])
    return Response(text, 200, headers, "text/csv; charset=utf-8; header=present")
