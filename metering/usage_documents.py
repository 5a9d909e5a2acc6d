"""Answers about usage as JSON documents: quantities are decimal strings, instants UTC."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from core.period import format_instant
from metering.domain.usage_query import UsagePage, WindowUsage, format_cursor
from metering.summarize_usage import UsageSummary


def page_document(page: UsagePage) -> dict[str, Any]:
    """Return a page: the question, its rows in `data`, and `next_cursor` (None on the last page)."""
    query = page.query
    return {
        "tenant_id": query.tenant,
        "meter": query.meter.meter_id,
        "unit": query.meter.unit,
        "aggregation": query.meter.aggregation,
        "window": query.window,
        "time_zone": query.calendar.time_zone,
        "group_by": list(query.group_by),
        "data": [
            {
                "start": format_instant(row.window.start),
                "end": format_instant(row.window.end),
                "dimensions": dict(zip(query.group_by, row.group, strict=True)),
                **_amounts(row),
            }
            for row in page.rows
        ],
        "next_cursor": format_cursor(page.next) if page.next else None,
    }


def summary_document(summary: UsageSummary, tenant: str) -> dict[str, Any]:
    """Return a period's totals in `data`, by meter."""
    return {
        "tenant_id": tenant,
        "period": summary.name,
        "start": format_instant(summary.period.start),
        "end": format_instant(summary.period.end),
        "time_zone": summary.time_zone,
        "data": [
            {
                "meter": query.meter.meter_id,
                "unit": query.meter.unit,
                "aggregation": query.meter.aggregation,
                **_amounts(row),
            }
            for query, row in summary.totals
        ],
    }


def _amounts(row: WindowUsage) -> dict[str, Any]:
    return {"quantity": _plain(row.quantity), "events": row.events}


def _plain(quantity: Decimal) -> str:
    return f"{quantity.normalize():f}" if quantity else "0"
