"""What a meter reads off an event's data, written a second time: for rows that SQL cannot read exactly.

Shares no code with `core.usage_event`, so that a mistake there shows as a gap.
"""

from __future__ import annotations

import json
import zlib
from decimal import Decimal
from typing import Any

from core.meters import Filter, Meter

Measured = tuple[tuple[str, ...], Decimal]


def measure(meter: Meter, data: str) -> Measured | None:
    """Return dimension values and quantity (of a unique meter: the value's checksum), None if the meter is not fed.

    The data are those of an accepted event; anything unreadable raises `ValueError`.
    """
    found = json.loads(data, parse_float=Decimal)
    if not all(_holds(condition, found) for condition in meter.filters):
        return None
    quantity = Decimal(1)
    if meter.value_property is not None:
        value = found.get(meter.value_property)
        if value is None:
            return None
        if meter.aggregation == "unique":
            quantity = Decimal(zlib.crc32((_text(value) or "").encode()))
        else:
            quantity = Decimal(value)
    return tuple(_text(found.get(name)) or "" for name in meter.dimensions), quantity


def _holds(condition: Filter, data: dict[str, Any]) -> bool:
    value = data.get(condition.property)
    match condition.operator:
        case "missing":
            return value is None
        case "exists":
            return value is not None
        case "eq" | "in":
            return value is not None and _text(value) in condition.values
        case "ne" | "not_in":
            return value is None or _text(value) not in condition.values
    number = _number(value)
    if number is None:
        return False
    bound = Decimal(condition.values[0])
    return {"gt": number > bound, "gte": number >= bound, "lt": number < bound, "lte": number <= bound}[
        condition.operator
    ]


def _text(value: Any) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
    return None


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        return None
    try:
        number = Decimal(value)
    except ArithmeticError:
        return None
    return None if number.is_nan() else number
