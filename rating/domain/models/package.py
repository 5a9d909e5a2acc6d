"""Package: units are sold in packages, and a package that was started is paid whole."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rating.domain.fields import Fields
from rating.domain.price import ZERO, Basis, Inputs, Part, Price, Rated, plain, product_step


@dataclass(frozen=True, slots=True)
class Package(Price):
    """After `free_units`, `unit_amount` for each started package of `package_size` units."""

    model: ClassVar[str] = "package"
    basis: ClassVar[Basis] = Basis.USAGE
    package_size: Decimal
    unit_amount: Decimal
    free_units: Decimal

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Package:
        """Read `package_size` (above zero), `unit_amount` of one package and `free_units`."""
        faults_before = len(fields.faults)
        size = fields.amount("package_size")
        if size == 0 and len(fields.faults) == faults_before:
            fields.fault("package_size", "invalid_number", "a package must hold something: expected more than 0")
        return cls(size, fields.amount("unit_amount"), fields.amount("free_units", ZERO))

    def rate(self, inputs: Inputs) -> Rated:
        """Return the free units, and the started packages of what is beyond them."""
        total = inputs.total
        free, beyond = min(total, self.free_units), max(total - self.free_units, ZERO)
        parts = []
        if free > 0:
            step = f"{plain(free)} of {plain(self.free_units)} free units = 0"
            parts.append(Part("free", f"free, up to {self.free_units:,f}", (), free, ZERO, 1, ZERO, (step,)))
        if beyond > 0:
            # Whole numbers of packages: no division that would have to be rounded.
            whole, rest = divmod(beyond, self.package_size)
            packages = whole + 1 if rest else whole
            amount = packages * self.unit_amount
            steps = [f"{plain(total)} - {plain(self.free_units)} free = {plain(beyond)}"] if self.free_units else []
            left = f" + {plain(rest)}" if rest else ""
            steps.append(
                f"{plain(beyond)} = {plain(whole)} × {plain(self.package_size)}{left}: {plain(packages)} started"
            )
            steps.append(product_step(packages, self.unit_amount, 1, amount))
            label = f"packages of {self.package_size:,f}"
            part = Part("packages", label, (), packages, self.unit_amount, 1, amount, tuple(steps), unit="package")
            parts.append(part)
        return Rated(tuple(parts))
