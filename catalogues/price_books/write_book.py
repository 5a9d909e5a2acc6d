"""Writes a price sheet as a catalogue: its meters, and one plan with a charge for each kind. The same sheet gives the
same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from typing import Any

from catalogues.price_books.kinds import EVENT_TYPE, KINDS, Kind
from catalogues.price_books.lay_out_cells import Cell, lay_out_cells
from catalogues.price_books.sheet import PriceSheet, Unexpressed

MODEL = "model"
# Words that some reader of YAML takes for something else than text.
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"})
_HEAD = """\
# Prices of language models, imported: meterbook catalogue import-prices. Do not edit, import again.
# Source: {source}
#
# Events of type {event_type} report each token once, in the property of the narrowest kind it is of (see meters), and
# `model` as it is named here.{dimensions}
"""
_DIMENSIONS = {
    "context": (
        "`context` is above_200000 for a request with more input tokens than that (cached ones included; from_200000:"
        " with at least\n# so many), always the highest its model has here, and missing below the first."
    ),
    "search_context": "`search_context` is how much a web search brings in: low, medium or high.",
    "service_tier": "`service_tier` is batch, flex or priority, and missing for the standard one.",
}


@dataclass(frozen=True, slots=True)
class Book:
    """A price book: its bytes, how many prices of how many models it has, and what of the table is not in it."""

    content: bytes
    models: int
    cells: int
    unexpressed: tuple[Unexpressed, ...]


def write_book(sheet: PriceSheet, *, plan_id: str, name: str, source: str) -> Book:
    """Return the sheet as a catalogue file with one plan; `source` says in one line where the prices are from."""
    unexpressed = list(sheet.unexpressed)
    by_kind = {kind: cells for kind in KINDS.values() if (cells := lay_out_cells(sheet, kind.kind_id, unexpressed))}
    tokens = any(kind.wanted for kind in by_kind)
    kinds = [kind for kind in KINDS.values() if kind in by_kind or (kind.wanted and tokens)]
    dimensions = {kind: _dimensions(by_kind.get(kind, ())) for kind in kinds}
    notes = sorted({name for found in dimensions.values() for name in found} - {MODEL})
    lines = [_HEAD.format(source=source, event_type=EVENT_TYPE, dimensions=_describe(notes)).rstrip("\n")]
    lines += [f"# {len(unexpressed)} entries of the source are not here:"] if unexpressed else []
    lines += [f"#   {one}" for one in unexpressed]
    lines += [f"catalogue: {plan_id}", "meters:"]
    for kind in kinds:
        lines += [f"  {kind.kind_id}:", *(f"    {line}" for line in _fields(_meter(kind, dimensions[kind])))]
    lines += ["plans:", f"  {plan_id}:", f"    name: {_flow(name)}", "    currency: USD", "    charges:"]
    for kind in kinds:
        if kind in by_kind:
            lines += _charge(kind, dimensions[kind], by_kind[kind])
    cell_count = sum(len(found) for found in by_kind.values())
    content = ("\n".join(lines) + "\n").encode()
    return Book(content, len(sheet.models), cell_count, tuple(unexpressed))


def _dimensions(cells: Iterable[Cell]) -> tuple[str, ...]:
    found = {dimension for cell in cells for dimension, _ in cell.condition}
    return (MODEL, *sorted(found))


def _describe(dimensions: Iterable[str]) -> str:
    return "".join(f"\n# {_DIMENSIONS[name]}" for name in dimensions)


def _meter(kind: Kind, dimensions: tuple[str, ...]) -> dict[str, Any]:
    return {
        "unit": kind.unit,
        "event_type": EVENT_TYPE,
        "aggregation": "sum",
        "value_property": kind.value_property,
        "dimensions": list(dimensions),
    }


def _charge(kind: Kind, dimensions: tuple[str, ...], cells: list[Cell]) -> list[str]:
    timed = any(cell.price.is_timed for cell in cells)
    fields: dict[str, Any] = {"id": kind.kind_id, "name": kind.name, "meter": kind.kind_id}
    fields["model"] = "scheduled_matrix" if timed else "matrix"
    if kind.per != 1:
        fields["transform_quantity"] = {"divide_by": kind.per}
    head, *rest = _fields(fields)
    lines = [f"      - {head}", *(f"        {line}" for line in rest)]
    if not timed and dimensions == (MODEL,):
        lines += [f"        dimension: {MODEL}", "        unit_amounts:"]
        return lines + [f"          {_text(cell.model)}: {_amount(cell.price.amount)}" for cell in cells]
    if timed:
        lines.append("        time_zone: UTC")
    lines += [f"        dimensions: {_flow(list(dimensions))}", "        cells:"]
    return lines + [f"          - {_flow(_cell(cell))}" for cell in cells]


def _cell(cell: Cell) -> dict[str, Any]:
    price = cell.price
    fields: dict[str, Any] = {"match": {MODEL: cell.model, **dict(cell.condition)}}
    if price.amount is not None:
        fields["unit_amount"] = price.amount
    if price.windows:
        fields["windows"] = [
            {"from": _clock(start), "to": _clock(end, end=True), "unit_amount": amount}
            for start, end, amount in price.windows
        ]
    if price.dated:
        fields["spot_prices"] = [
            {"from": start.strftime("%Y-%m-%dT%H:%M:%SZ"), "unit_amount": amount} for start, amount in price.dated
        ]
    return fields


def _clock(border: time, *, end: bool = False) -> str:
    return "24:00" if end and border == time(0) else border.strftime("%H:%M")


def _fields(fields: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {_flow(value)}" for name, value in fields.items()]


def _flow(value: object) -> str:
    """Write a value in one line; what is text to JSON is the same text to YAML."""
    match value:
        case Decimal():
            return _amount(value)
        case dict():
            return "{" + ", ".join(f"{_text(str(name))}: {_flow(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case str():
            return _text(value)
    return str(value)


def _text(value: str) -> str:
    plain = value.replace("_", "").replace("-", "").replace(" ", "")
    if plain.isascii() and plain.isalpha() and value == value.strip(" -") and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def _amount(amount: Decimal | None) -> str:
    text = f"{amount or Decimal(0):f}"
    return f'"{text.rstrip("0").rstrip(".") if "." in text else text}"'
