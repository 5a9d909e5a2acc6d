"""Matrix: a price per combination of values of one or several dimensions, with wildcards and a default for the others.

Of the cells that match, the most specific wins: the one that names the most dimensions. A table in which two cells are
equally specific for some combination, and no cell more specific decides it, is refused when it is read, so the order of
cells never decides a price.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import ClassVar

from core.errors import Fault
from rating.domain.fields import Fields, parse_amount
from rating.domain.models.corrections import refuse_negative
from rating.domain.price import (
    ZERO,
    Basis,
    Dimensions,
    Inputs,
    Part,
    Price,
    Rated,
    multiply,
    product_step,
    read_per,
)

WILDCARD = "*"
_AMBIGUOUS_SHOWN = 10
# A cell's pattern: the dimensions it names with their values, sorted by name; wildcards are left out.
Pattern = Dimensions


@dataclass(frozen=True, slots=True)
class Matrix(Price):
    """`cells` by pattern; `unit_amount` is the default, None where there is none.

    Usage whose combination has no price (and no default) is reported as unpriced. `dimensions` are sorted by name.
    """

    model: ClassVar[str] = "matrix"
    basis: ClassVar[Basis] = Basis.USAGE
    dimensions: tuple[str, ...]
    cells: Mapping[Pattern, Decimal]
    unit_amount: Decimal | None
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Matrix:
        """Read one dimension's prices, or cells of several, a default `unit_amount` and `transform_quantity`.

        One: `dimension` and `unit_amounts` by value. Several: `dimensions` and `cells`, each with `match` (values by
        dimension, "*" or nothing for any) and `unit_amount`.
        """
        several = fields.has("dimensions") or fields.has("cells")
        if several and (fields.has("dimension") or fields.has("unit_amounts")):
            reason = "either dimension and unit_amounts, or dimensions and cells"
            fields.fault("cells" if fields.has("cells") else "dimensions", "contradiction", reason)
        named = _read_dimensions(fields, dimensions) if several else _read_dimension(fields, dimensions)
        cells = _read_cells(fields, named) if several else _read_amounts(fields, named)
        default = fields.amount("unit_amount") if fields.has("unit_amount") else None
        if not cells and default is None:
            name = "cells" if several else "unit_amounts"
            fields.fault(name, "missing_field", "expected a price per value, or a default unit_amount")
        return cls(tuple(sorted(named)), cells, default, read_per(fields))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part per combination of values; those without a price come back as unpriced."""
        # Combinations are settled first: what a correction takes back may stand under other values of other dimensions.
        by_values: dict[tuple[str, ...], Decimal] = {}
        for dimensions, quantity in inputs.usage.items():
            known = dict(dimensions)
            values = tuple(known.get(name, "") for name in self.dimensions)
            by_values[values] = by_values.get(values, ZERO) + quantity
        parts: list[Part] = []
        unpriced: list[tuple[Dimensions, Decimal]] = []
        for values, quantity in sorted(by_values.items()):
            if quantity == 0:
                continue
            label = " / ".join(value or "not named" for value in values) if len(values) > 1 else values[0]
            refuse_negative(quantity, label or "no value")
            # An empty value means "not named", which is not the same as "all of them" (no dimensions at all).
            split: Dimensions = tuple(zip(self.dimensions, values, strict=True))
            price = self.price_of(split)
            if price is None:
                unpriced.append((split, quantity))
                continue
            amount = multiply(quantity, price, self.per)
            step = product_step(quantity, price, self.per, amount)
            parts.append(Part("", label, split, quantity, price, self.per, amount, (step,)))
        return Rated(tuple(parts), tuple(unpriced))

    def price_of(self, values: Dimensions) -> Decimal | None:
        """Return the price of the most specific cell that matches, the default if none does; None without one."""
        return next((self.cells[pattern] for pattern in _patterns(values) if pattern in self.cells), self.unit_amount)

    @property
    def split_by(self) -> tuple[str, ...]:
        """The dimensions, sorted by name."""
        return self.dimensions


def _patterns(values: Pattern) -> Iterator[Pattern]:
    """Yield the patterns that match these values, the most specific first."""
    for size in range(len(values), -1, -1):
        yield from combinations(values, size)


def _read_dimension(fields: Fields, known: tuple[str, ...]) -> tuple[str, ...]:
    dimension = fields.text("dimension")
    if dimension and dimension not in known:
        _unknown(fields, "dimension", dimension, known)
    return (dimension,)


def _read_dimensions(fields: Fields, known: tuple[str, ...]) -> tuple[str, ...]:
    named: list[str] = []
    documents = fields.items("dimensions")
    if not documents:
        fields.fault("dimensions", "missing_field", "expected the names of the dimensions that cells match")
    for index, document in enumerate(documents):
        if not isinstance(document, str) or not document:
            fields.fault(f"dimensions[{index}]", "invalid_text", "expected the name of a dimension")
        elif document in named:
            fields.fault(f"dimensions[{index}]", "duplicate_id", f"the dimension {document!r} is named twice")
        else:
            if document not in known:
                _unknown(fields, f"dimensions[{index}]", document, known)
            named.append(document)
    return tuple(named)


def _unknown(fields: Fields, name: str, dimension: str, known: tuple[str, ...]) -> None:
    has = ", ".join(known) or "none"
    fields.fault(name, "unknown_dimension", f"the meter has no dimension {dimension!r}; it has: {has}")


def _read_amounts(fields: Fields, named: tuple[str, ...]) -> dict[Pattern, Decimal]:
    cells: dict[Pattern, Decimal] = {}
    for value, document in fields.mapping("unit_amounts").items():
        parsed = parse_amount(document)
        if isinstance(parsed, Fault):
            fields.fault(f"unit_amounts.{value}", parsed.code, parsed.reason)
        elif not value:
            fields.fault("unit_amounts", "invalid_name", "a dimension value must not be empty: use unit_amount")
        elif value == WILDCARD:
            fields.fault(f"unit_amounts.{value}", "contradiction", "the price of any other value is unit_amount")
        else:
            cells[((named[0], value),)] = parsed
    return cells


def _read_cells(fields: Fields, named: tuple[str, ...]) -> dict[Pattern, Decimal]:
    cells: dict[Pattern, Decimal] = {}
    places: dict[Pattern, int] = {}
    faults_before = len(fields.faults)
    for index, document in enumerate(fields.items("cells")):
        cell = Fields(document, fields.at(f"cells[{index}]"), fields.faults)
        pattern = _read_pattern(cell, named)
        amount = cell.amount("unit_amount")
        cell.finish()
        if not pattern:
            if len(fields.faults) == faults_before:
                cell.fault("match", "contradiction", "a cell that matches everything is the default: use unit_amount")
        elif pattern in cells:
            cell.fault("match", "duplicate_id", f"cells[{places[pattern]}] matches the same: {_show(pattern)}")
        else:
            cells[pattern], places[pattern] = amount, index
    if len(fields.faults) == faults_before:
        _refuse_ambiguous(fields, cells, places)
    return cells


def _read_pattern(cell: Fields, named: tuple[str, ...]) -> Pattern:
    pattern = []
    for name, value in cell.mapping("match").items():
        if name not in named:
            has = ", ".join(named) or "none"
            cell.fault(f"match.{name}", "unknown_dimension", f"{name!r} is not one of the price's dimensions: {has}")
        elif not isinstance(value, str) or not value or not value.isprintable():
            cell.fault(f"match.{name}", "invalid_text", f'expected a value, or "{WILDCARD}" for any')
        elif value != WILDCARD:
            pattern.append((name, value))
    return tuple(sorted(pattern))


def _refuse_ambiguous(fields: Fields, cells: Mapping[Pattern, Decimal], places: Mapping[Pattern, int]) -> None:
    """Note every combination (the first few) for which two cells tie and none that is more specific decides."""
    found = 0
    for one, other in _ties(cells):
        both = tuple(sorted({*one, *other}))
        # What is more specific than the two and matches whatever both match.
        deciding = (pattern for size in range(len(both), len(one), -1) for pattern in combinations(both, size))
        if any(pattern in cells for pattern in deciding):
            continue
        later = max(places[one], places[other])
        reason = f"{_show(both)} matches cells[{min(places[one], places[other])}] just as well: add a cell for it"
        fields.fault(f"cells[{later}].match", "ambiguous_price", reason)
        found += 1
        if found == _AMBIGUOUS_SHOWN:
            return


def _ties(cells: Mapping[Pattern, Decimal]) -> Iterator[tuple[Pattern, Pattern]]:
    """Yield pairs of cells that name as many dimensions, not the same ones, and agree on those they share."""
    by_names: dict[tuple[str, ...], list[Pattern]] = defaultdict(list)
    for pattern in cells:
        by_names[tuple(name for name, _ in pattern)].append(pattern)
    for one, other in combinations(by_names, 2):
        if len(one) != len(other):
            continue
        shared = set(one) & set(other)
        by_shared: dict[Pattern, list[Pattern]] = defaultdict(list)
        for pattern in by_names[other]:
            by_shared[_only(pattern, shared)].append(pattern)
        for pattern in by_names[one]:
            for match in by_shared[_only(pattern, shared)]:
                yield pattern, match


def _only(pattern: Pattern, names: set[str]) -> Pattern:
    return tuple((name, value) for name, value in pattern if name in names)


def _show(pattern: Pattern) -> str:
    return ", ".join(f"{name} {value}" for name, value in pattern)
