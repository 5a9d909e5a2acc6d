"""What usage must add up to, worked out from the generator's own log. Shares no code with the product.

Events are plain dictionaries in the order in which they were produced. Sums are `Decimal` with a context wide enough
never to round, times are read by the standard library, the first event of an identity wins.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any

_EXACT = Context(prec=200)


@dataclass(frozen=True)
class MeterRule:
    """A meter as the oracle sees it: `value` names the quantity within `data`, None counts events."""

    name: str
    event_type: str
    value: str | None
    dimensions: tuple[str, ...] = ()


@dataclass
class Expected:
    """Sums: per minute window, per month and hour, and the identities behind them."""

    windows: dict[tuple[str, str, tuple[tuple[str, str], ...], datetime], Decimal] = field(default_factory=dict)
    periods: dict[tuple[str, str, str], Decimal] = field(default_factory=dict)
    identities: set[tuple[str, str, str]] = field(default_factory=set)


def expect(events: Iterable[dict[str, Any]], rules: Iterable[MeterRule]) -> Expected:
    """Add up the distinct ones of `events`."""
    windows: dict[Any, Decimal] = defaultdict(Decimal)
    periods: dict[Any, Decimal] = defaultdict(Decimal)
    seen: set[tuple[str, str, str]] = set()
    by_type: dict[str, list[MeterRule]] = defaultdict(list)
    for rule in rules:
        by_type[rule.event_type].append(rule)
    for event in events:
        tenant = event["subject"].split("/")[0]
        identity = (tenant, event["source"], event["id"])
        if identity in seen:
            continue
        seen.add(identity)
        instant = _instant(event["time"])
        for rule in by_type[event["type"]]:
            data = event["data"]
            if rule.value is not None and data.get(rule.value) is None:
                continue
            quantity = Decimal(1) if rule.value is None else Decimal(str(data[rule.value]))
            dimensions = tuple(sorted((name, str(data.get(name, ""))) for name in rule.dimensions))
            window = (tenant, rule.name, dimensions, instant.replace(second=0, microsecond=0))
            windows[window] = _EXACT.add(windows[window], quantity)
            for period in (f"{instant:%Y-%m}", f"{instant:%Y-%m-%dT%H}"):
                periods[tenant, rule.name, period] = _EXACT.add(periods[tenant, rule.name, period], quantity)
    return Expected(dict(windows), dict(periods), seen)


def loads(text: str) -> Any:
    """Read JSON without any float."""
    return json.loads(text, parse_float=Decimal)


def _instant(text: str) -> datetime:
    """Read RFC 3339, fractions beyond microseconds cut off."""
    head, dot, rest = text.partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
