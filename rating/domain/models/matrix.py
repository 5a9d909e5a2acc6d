"""Matrix: a price per value of one dimension (per model, storage class, GPU), with a default for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from core.errors import Fault
from rating.domain.fields import Fields, parse_amount
from rating.domain.price import ZERO, Basis, Dimensions, Inputs, Part, Price, Rated, multiply, product_step, read_per


@dataclass(frozen=True, slots=True)
class Matrix(Price):
    """`unit_amounts` by value of `dimension`; `unit_amount` is the default, None where there is none.

    Usage whose value has no price (and no default) is reported as unpriced.
    """

    model: ClassVar[str] = "matrix"
    basis: ClassVar[Basis] = Basis.USAGE
    dimension: str
    unit_amounts: Mapping[str, Decimal]
    unit_amount: Decimal | None
    per: int

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Matrix:
        """Read `dimension`, `unit_amounts`, the optional default `unit_amount` and `transform_quantity`."""
        dimension = fields.text("dimension")
        if dimension and dimension not in dimensions:
            known = ", ".join(dimensions) or "none"
            fields.fault("dimension", "unknown_dimension", f"the meter has no dimension {dimension!r}; it has: {known}")
        amounts: dict[str, Decimal] = {}
        for value, document in fields.mapping("unit_amounts").items():
            parsed = parse_amount(document)
            if isinstance(parsed, Fault):
                fields.fault(f"unit_amounts.{value}", parsed.code, parsed.reason)
            elif not value:
                fields.fault("unit_amounts", "invalid_name", "a dimension value must not be empty: use unit_amount")
            else:
                amounts[value] = parsed
        default = fields.amount("unit_amount") if fields.has("unit_amount") else None
        if not amounts and default is None:
            fields.fault("unit_amounts", "missing_field", "expected a price per value, or a default unit_amount")
        return cls(dimension, amounts, default, read_per(fields))

    def rate(self, inputs: Inputs) -> Rated:
        """Return one part per value of the dimension; values without a price come back as unpriced."""
        by_value: dict[str, Decimal] = {}
        for dimensions, quantity in inputs.usage.items():
            value = dict(dimensions).get(self.dimension, "")
            by_value[value] = by_value.get(value, ZERO) + quantity
        parts: list[Part] = []
        unpriced: list[tuple[Dimensions, Decimal]] = []
        for value, quantity in sorted(by_value.items()):
            if quantity == 0:
                continue
            price = self.unit_amounts.get(value, self.unit_amount)
            # An empty value means "not named", which is not the same as "all of them" (no dimensions at all).
            split: Dimensions = ((self.dimension, value),)
            if price is None:
                unpriced.append((split, quantity))
                continue
            amount = multiply(quantity, price, self.per)
            step = product_step(quantity, price, self.per, amount)
            parts.append(Part("", value, split, quantity, price, self.per, amount, (step,)))
        return Rated(tuple(parts), tuple(unpriced))

    @property
    def split_by(self) -> tuple[str, ...]:
        """The dimension."""
        return (self.dimension,)
