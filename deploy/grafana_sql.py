"""Turns a panel's SQL into what ClickHouse gets, without Grafana. Owns variables and the datasource plugin's macros.

Follows grafana-clickhouse-datasource 4.20 (`pkg/macros/macros.go`, `src/data/CHDatasource.ts`): first
`$__conditionalAll` by the variables' values, then variables, then time macros from the inside out. Anything that looks
like a macro or a variable and is not known here is a fault, where Grafana would send it on to the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

ALL = "$__all"
_VARIABLE = re.compile(r"\$\{(?P<braced>\w+)(?::(?P<format>\w+))?\}|\$(?P<plain>(?!__)\w+)")
_MACRO = re.compile(r"\$__(?P<name>\w+)")


class UnknownMacroError(ValueError):
    """The SQL has a macro, variable or variable format that the check does not know."""


@dataclass(frozen=True, slots=True)
class QueryContext:
    """What Grafana knows when it runs a query: the shown time, the interval of a point, and the variables' values.

    `interval_s` is in whole seconds; a variable with the value `(ALL,)` stands for every value.
    """

    time_from: datetime
    time_to: datetime
    interval_s: int
    variables: Mapping[str, Sequence[str]]


def expand(sql: str, context: QueryContext) -> str:
    """Return the SQL as ClickHouse gets it; raises `UnknownMacroError` naming what cannot be expanded."""
    return _expand_macros(_expand_variables(_expand_conditional_all(sql, context), context), context)


def used_variables(sql: str) -> set[str]:
    """Return the names of the variables that the SQL or a title mentions."""
    return {match["braced"] or match["plain"] for match in _VARIABLE.finditer(sql)} - {"__field"}


def _expand_conditional_all(sql: str, context: QueryContext) -> str:
    opening = "$__conditionalAll("
    while (start := sql.rfind(opening)) != -1:
        arguments, end = _arguments(sql, start + len(opening))
        if len(arguments) != 2 or not (named := used_variables(arguments[1])):
            raise UnknownMacroError("$__conditionalAll takes a condition and a variable")
        (name,) = named
        shows_all = tuple(_value(name, context)) in ((ALL,), ("",))
        sql = sql[:start] + ("1=1" if shows_all else arguments[0]) + sql[end:]
    return sql


def _expand_variables(sql: str, context: QueryContext) -> str:
    def replace(match: re.Match[str]) -> str:
        name, form = match["braced"] or match["plain"], match["format"]
        values = _value(name, context)
        if form == "singlequote":
            return ",".join("'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" for value in values)
        if form in (None, "raw") and len(values) == 1:
            return values[0]
        raise UnknownMacroError(f"variable {name} has {len(values)} values and the format {form}")

    return _VARIABLE.sub(replace, sql)


def _value(name: str, context: QueryContext) -> Sequence[str]:
    if name not in context.variables:
        raise UnknownMacroError(f"no variable {name}")
    return context.variables[name]


def _expand_macros(sql: str, context: QueryContext) -> str:
    # The last macro has none inside its arguments that was not expanded before it.
    while found := list(_MACRO.finditer(sql)):
        match = found[-1]
        arguments: list[str] = []
        end = match.end()
        if sql[end : end + 1] == "(":
            arguments, end = _arguments(sql, end + 1)
        sql = sql[: match.start()] + _macro(match["name"], arguments, context) + sql[end:]
    return sql


def _macro(name: str, arguments: list[str], context: QueryContext) -> str:
    first, last = f"toDateTime({int(context.time_from.timestamp())})", f"toDateTime({int(context.time_to.timestamp())})"
    step = max(context.interval_s, 1)
    constants = {"fromTime": first, "toTime": last, "interval_s": str(step)}
    of_column: dict[str, Callable[[str], str]] = {
        "timeFilter": lambda column: f"{column} >= {first} AND {column} <= {last}",
        "dateFilter": lambda column: (
            f"{column} >= toDate('{context.time_from:%Y-%m-%d}') AND {column} <= toDate('{context.time_to:%Y-%m-%d}')"
        ),
        "timeInterval": lambda column: f"toStartOfInterval(toDateTime({column}), INTERVAL {step} second)",
    }
    if name in constants and not arguments:
        return constants[name]
    if name in of_column and len(arguments) == 1:
        return of_column[name](arguments[0])
    raise UnknownMacroError(f"no macro $__{name} with {len(arguments)} arguments")


def _arguments(sql: str, start: int) -> tuple[list[str], int]:
    """Return the arguments of the call whose bracket opened just before `start`, and where the call ends."""
    depth, begin, arguments = 1, start, []
    for position in range(start, len(sql)):
        character = sql[position]
        depth += (character == "(") - (character == ")")
        if depth == 0:
            arguments.append(sql[begin:position].strip())
            return [argument for argument in arguments if argument], position + 1
        if character == "," and depth == 1:
            arguments.append(sql[begin:position].strip())
            begin = position + 1
    raise UnknownMacroError(f"a bracket stays open: {sql[start - 20 : start + 20]!r}")
