"""Scheduled matrix: a matrix of which some cells change their price with time (models that cost less at night).

Cells are found as in a matrix; a cell with `windows` or `spot_prices` is priced as `scheduled` says, any other as a
matrix does. A meter that all values share can so have times of day for a few of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations
from typing import Any, ClassVar

from core.errors import Fault, InvalidInputError
from rating.domain.fields import Fields
from rating.domain.models.matrix import WILDCARD, Matrix
from rating.domain.models.scheduled import Scheduled, read_time_zone
from rating.domain.price import ZERO, Basis, Dimensions, Grain, Inputs, Part, Price, Rated, UsageEntry

_SCHEDULE = ("windows", "spot_prices")
_CELL = frozenset({"match", "unit_amount", *_SCHEDULE})
# Stands in the matrix for the price of a cell that has a schedule; nothing is ever priced by it.
_NO_AMOUNT = "0"


@dataclass(frozen=True, slots=True)
class ScheduledMatrix(Price):
    """`matrix` finds the cell of a combination of values; `schedules` has the cells whose price depends on when."""

    model: ClassVar[str] = "scheduled_matrix"
    basis: ClassVar[Basis] = Basis.USAGE
    grain: ClassVar[Grain] = Grain.SLOT
    matrix: Matrix
    schedules: Mapping[Dimensions, Scheduled]

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> ScheduledMatrix:
        """Read a matrix' `dimensions`, `cells`, default `unit_amount`, `transform_quantity`, and `time_zone`.

        A cell may have `windows` and `spot_prices` (see `scheduled`); its `unit_amount` is then for all other times.
        """
        found_before = len(fields.faults)
        documents = fields.items("cells")
        plain: list[object] = []
        scheduled: list[tuple[dict[str, Any], Scheduled]] = []
        time_zone = read_time_zone(fields)
        for index, cell in enumerate(documents):
            if not isinstance(cell, dict) or not any(name in cell for name in _SCHEDULE):
                plain.append(cell)
                continue
            at = Fields(cell, fields.at(f"cells[{index}]"), fields.faults)
            at.ignore(*_CELL)
            at.finish()
            timed = {name: value for name, value in cell.items() if name in _CELL - {"match"}}
            scheduled.append((cell, Scheduled.read(Fields(timed, at.path, fields.faults), dimensions)))
            plain.append({"match": cell.get("match"), "unit_amount": _NO_AMOUNT})
        if not scheduled and len(fields.faults) == found_before:
            fields.fault(
                "cells", "missing_field", "expected a cell with windows or spot_prices; without, it is a matrix"
            )
        own = ("dimensions", "unit_amount", "transform_quantity")
        given = {name: fields.raw(name) for name in own if fields.has(name)}
        matrix = Matrix.read(Fields({"cells": plain, **given}, fields.path, fields.faults), dimensions)
        if len(fields.faults) > found_before:
            return cls(matrix, {})
        schedules = {
            _pattern(cell["match"]): replace(schedule, per=matrix.per, time_zone=time_zone)
            for cell, schedule in scheduled
        }
        return cls(matrix, schedules)

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part per combination of values, or one per window of a combination whose price has a schedule."""
        if not inputs.entries and inputs.total:
            reason = "this price depends on when: give usage with its times"
            raise InvalidInputError([Fault("entries_needed", reason, "usage")])
        plain: dict[Dimensions, Decimal] = defaultdict(Decimal)
        timed: dict[Dimensions, list[UsageEntry]] = defaultdict(list)
        for entry in inputs.entries:
            known = dict(entry.dimensions)
            values = tuple((name, known.get(name, "")) for name in self.matrix.dimensions)
            if self._cell(values) in self.schedules:
                timed[values].append(entry)
            else:
                plain[values] += entry.quantity
        rated = self.matrix.rate(replace(inputs, usage=plain))
        parts, unpriced = list(rated.parts), list(rated.unpriced)
        for values in sorted(timed):
            cell = self._cell(values)
            assert cell is not None
            own = self.schedules[cell].rate(replace(inputs, usage={}, entries=tuple(timed[values])))
            parts += [_of_values(part, values) for part in own.parts]
            left = sum((quantity for _, quantity in own.unpriced), ZERO)
            unpriced += [(values, left)] if left else []
        return Rated(tuple(parts), tuple(unpriced))

    @property
    def split_by(self) -> tuple[str, ...]:
        """The dimensions, sorted by name."""
        return self.matrix.split_by

    def _cell(self, values: Dimensions) -> Dimensions | None:
        """Return the most specific cell that matches; None if only the default is left."""
        for size in range(len(values), 0, -1):
            for pattern in combinations(values, size):
                if pattern in self.matrix.cells:
                    return pattern
        return None


def _pattern(match: Mapping[str, str]) -> Dimensions:
    return tuple(sorted((name, value) for name, value in match.items() if value != WILDCARD))


def _of_values(part: Part, values: Dimensions) -> Part:
    named = [value or "not named" for _, value in values]
    return replace(part, label=" / ".join((*named, part.label)), dimensions=values)
