"""The SQL that measures raw events again, in ClickHouse, exactly: a second way to what the stream counted.

`JSONExtract*` reads a JSON number as a float, so digits are taken from the text itself: the token behind the one
occurrence of the property's name. Where that is not certain (the name occurs twice, is written with escapes, the number
has an unusual form), the row is not `exact` and is left to `raw_measure`; no row is ever guessed or dropped.
"""
# ruff: noqa: S608 - every text goes through `quoted`, everything else is a number

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.meters import Filter, Meter
from core.usage_event import VOID
from metering.reconcile.domain.gap import HOUR_SECONDS, Cell

_VALUE = r'(-?[0-9][0-9.eE+-]*|"(?:[^"\\]|\\.)*"|true|false|null|\{|\[)'
# A string where a key may stand, with an escape in it: it may be any name.
_ESCAPED_KEY = r'[{,]\s*"(?:[^"\\]|\\.)*\\u'
_WHOLE = "^(0|-?[1-9][0-9]*)$"
_NUMBER = r"^-?[0-9]{1,25}(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
_COMPARABLE = r"^-?[0-9]{1,25}(\.[0-9]{1,12})?$"
_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class MeasureQueries:
    """`sums` returns (tenant, hour, dimensions, quantity, events) of exact rows, `others` (tenant, hour, data)."""

    sums: str
    others: str


def measure_queries(
    meter: Meter, cells: Collection[Cell], first_offsets: Mapping[int, int] | None, others_max: int
) -> MeasureQueries:
    """Return the queries of one meter over some cells.

    `first_offsets` says from which source offset on each partition counts the meter, others do not count it;
    None stands for all of them, always.
    """
    names = list(
        dict.fromkeys([*([meter.value_property] if meter.value_property else []), *meter.dimensions])
        | dict.fromkeys(condition.property for condition in meter.filters)
    )
    number = {name: index for index, name in enumerate(names)}
    exact = [f"NOT match(data, {quoted(_ESCAPED_KEY)})"] if names else ["1"]
    exact += [f"(NOT h{index} OR n{index} = 1)" for index in number.values()]
    feeds = ["1"]
    for condition in meter.filters:
        holds, is_exact = _filter(condition, number[condition.property])
        feeds.append(holds)
        exact.append(is_exact)
    quantity = "toDecimal128(1, 12)"
    if meter.value_property is not None:
        index = number[meter.value_property]
        feeds.append(_present(index))
        if meter.aggregation == "unique":
            quantity = f"toDecimal128(CRC32({_text(index)}), 12)"
            exact.append(f"(NOT {_present(index)} OR {_text_is_exact(index)})")
        else:
            quantity = f"ifNull({_decimal(index, _NUMBER)}, toDecimal128(0, 12))"
            exact.append(f"(NOT {_present(index)} OR {_decimal(index, _NUMBER)} IS NOT NULL)")
    for name in meter.dimensions:
        index = number[name]
        exact.append(f"(NOT {_present(index)} OR {_text_is_exact(index)})")
    dimensions = ", ".join(_text(number[name]) for name in meter.dimensions)
    columns = "".join(_columns(name, index) for name, index in number.items())
    inner = (
        f"SELECT tenant, toUnixTimestamp(toStartOfHour(time)) AS hour, data{columns}"
        f" FROM usage_events FINAL WHERE {_raw_rows(meter, cells, first_offsets)}"
    )
    is_exact, is_fed = " AND ".join(exact), " AND ".join(feeds)
    return MeasureQueries(
        sums=(
            f"SELECT tenant, hour, CAST([{dimensions}], 'Array(String)') AS dimensions, sum({quantity}), count()"
            f" FROM ({inner}) WHERE {is_exact} AND {is_fed} GROUP BY tenant, hour, dimensions"
        ),
        others=f"SELECT tenant, hour, data FROM ({inner}) WHERE NOT ({is_exact}) LIMIT {others_max}",
    )


def in_cells(cells: Collection[Cell], time_column: str) -> str:
    """Return the condition that a row lies in one of the cells."""
    tenants = sorted({cell.tenant for cell in cells})
    first, last = min(cell.hour for cell in cells), max(cell.hour for cell in cells)
    pairs = ", ".join(f"({quoted(tenant)}, {hour})" for tenant, hour in sorted(cells))
    return (
        f"tenant IN ({', '.join(map(quoted, tenants))})"
        f" AND {time_column} >= toDateTime({first}, 'UTC') AND {time_column} < toDateTime({last + HOUR_SECONDS}, 'UTC')"
        f" AND (tenant, toUnixTimestamp(toStartOfHour({time_column}))) IN ({pairs})"
    )


def at_or_after(offsets: Mapping[int, int], otherwise: int) -> str:
    """Return the condition that a row's source offset is not before its partition's."""
    if not offsets:
        return f"source_offset >= {otherwise}"
    partitions, firsts = ", ".join(map(str, offsets)), ", ".join(map(str, offsets.values()))
    return (
        f"toInt64(source_offset) >= transform(toInt64(source_partition), [{partitions}], [{firsts}],"
        f" toInt64({otherwise}))"
    )


def not_corrected(tenants: Collection[str]) -> str:
    """Return the condition that no void or amend has taken a row out."""
    return (
        "(tenant, source, id) NOT IN (SELECT tenant, target_source, target_id FROM usage_corrections FINAL"
        f" WHERE kind IN ('void', 'amend') AND tenant IN ({', '.join(map(quoted, sorted(tenants)))}))"
    )


def quoted(text: str) -> str:
    """Return a text as a literal of ClickHouse's SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _raw_rows(meter: Meter, cells: Collection[Cell], first_offsets: Mapping[int, int] | None) -> str:
    tenants = {cell.tenant for cell in cells}
    return " AND ".join(
        [
            f"type = {quoted(meter.event_type)}",
            f"type != {quoted(VOID)}",
            in_cells(cells, "time"),
            at_or_after({}, 0) if first_offsets is None else at_or_after(first_offsets, _NEVER),
            not_corrected(tenants),
        ]
    )


def _columns(name: str, index: int) -> str:
    key = _regex_escaped(json.dumps(name, ensure_ascii=False)) + r"\s*:\s*"
    return (
        f", JSONHas(data, {quoted(name)}) AS h{index}"
        f", countMatches(data, {quoted(key)}) AS n{index}"
        f", if(h{index}, extract(data, {quoted(key + _VALUE)}), '') AS t{index}"
        f", if(startsWith(t{index}, '\"'), JSONExtractString(data, {quoted(name)}), t{index}) AS s{index}"
    )


def _present(index: int) -> str:
    return f"(h{index} AND t{index} != 'null')"


def _text(index: int) -> str:
    return f"if({_present(index)}, s{index}, '')"


def _text_is_exact(index: int) -> str:
    # A number with a fraction is written as Python's Decimal writes it; only whole ones are certain to look the same.
    return f"(startsWith(t{index}, '\"') OR t{index} IN ('true', 'false') OR match(t{index}, {quoted(_WHOLE)}))"


def _decimal(index: int, form: str) -> str:
    return f"if(match(s{index}, {quoted(form)}), toDecimal128OrNull(s{index}, 12), NULL)"


def _filter(condition: Filter, index: int) -> tuple[str, str]:
    """Return (condition, whether it is certain)."""
    present = _present(index)
    match condition.operator:
        case "exists":
            return present, "1"
        case "missing":
            return f"NOT {present}", "1"
        case "eq" | "in" | "ne" | "not_in":
            values = ", ".join(map(quoted, condition.values)) or "NULL"
            certain = f"(NOT {present} OR {_text_is_exact(index)})"
            if condition.operator in ("eq", "in"):
                return f"({present} AND s{index} IN ({values}))", certain
            return f"(NOT {present} OR s{index} NOT IN ({values}))", certain
    bound = Decimal(condition.values[0])
    exponent = bound.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -12 or abs(bound) >= Decimal(10) ** 25:
        return "0", f"NOT {present}"
    number = _decimal(index, _COMPARABLE)
    compared = f"{number} {_COMPARISONS[condition.operator]} toDecimal128('{bound:f}', 12)"
    certain = f"(NOT {present} OR t{index} IN ('true', 'false') OR {number} IS NOT NULL)"
    return f"({present} AND ifNull({compared}, 0))", certain


def _regex_escaped(text: str) -> str:
    return "".join(
        f"\\{char}" if not char.isalnum() and char.isascii() and char not in '_ "' else char for char in text
    )
