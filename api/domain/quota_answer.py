"""What a live quota says. Owns the sums over partitions and what is left of a limit; texts in, texts out, no float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

import msgspec

from core.period import format_instant


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a meter a tenant may use in a period; `hard` refuses what goes beyond."""

    quantity: Decimal
    hard: bool


@dataclass(frozen=True, slots=True)
class QuotaReading:
    """One quota as Redis holds it: hash fields of the quota, and the freshness of each partition (milliseconds)."""

    fields: Mapping[str, str]
    freshness_ms: Mapping[str, int]
    is_stale: bool


def read_freshness(fields: Mapping[str, str]) -> dict[str, int]:
    """Return partition -> the time its newest record was seen, from `meterbook:freshness`.

    A partition in which nothing was counted yet has no time to tell and is left out.
    """
    freshness = {}
    for name, text in fields.items():
        at_ms = int(msgspec.json.decode(text)["at_ms"])
        if at_ms > 0:
            freshness[name.removeprefix("p")] = at_ms
    return freshness


def used_quantity(fields: Mapping[str, str]) -> Decimal:
    """Add up a quota's quantities over source partitions and their segments."""
    return sum((Decimal(text) for name, text in fields.items() if _is_part(name, "q")), Decimal(0))


def counted_events(fields: Mapping[str, str]) -> int:
    """Add up a quota's events over source partitions and their segments."""
    return sum(int(text) for name, text in fields.items() if _is_part(name, "n"))


def answer_quota(
    *, tenant: str, meter: str, unit: str, period: str, reading: QuotaReading, limit: Limit | None
) -> dict[str, Any]:
    """Return the answer as JSON-ready fields; `limit`, `remaining` and `percent` are null without a limit."""
    used = used_quantity(reading.fields)
    return {
        "tenant_id": tenant,
        "meter": meter,
        "unit": unit,
        "period": period,
        "used": _text(used),
        "limit": _text(limit.quantity) if limit else None,
        "remaining": _text(max(limit.quantity - used, Decimal(0))) if limit else None,
        "percent": _percent(used, limit.quantity) if limit else None,
        "hard": limit.hard if limit else None,
        "events": counted_events(reading.fields),
        "as_of": _as_of(reading),
        "stale": reading.is_stale,
    }


def _percent(used: Decimal, limit: Decimal) -> str:
    if not limit:
        return "100.00" if used else "0.00"
    # Cut, not rounded: 100.00 is said only when the limit is reached.
    return f"{(used * 100 / limit).quantize(Decimal('0.01'), rounding=ROUND_DOWN):f}"


def _as_of(reading: QuotaReading) -> str | None:
    """Return up to when the figure is complete: the least fresh partition that feeds it."""
    partitions = {name[1:].partition(":")[0] for name in reading.fields if _is_part(name, "q")}
    known = [reading.freshness_ms[name] for name in partitions if name in reading.freshness_ms]
    known = known or list(reading.freshness_ms.values())
    if not known:
        return None
    return format_instant(datetime.fromtimestamp(min(known) / 1000, UTC))


def _is_part(name: str, kind: str) -> bool:
    return name[:1] == kind and name[1:2].isdigit()


def _text(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
