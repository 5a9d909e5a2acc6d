"""What tenants paid and would pay under other prices, added up. Owns what counts as more, less and unchanged. Pure.

Sums of parts can be merged in any grouping, so tenants may be rated in chunks and by several processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from core.money import minor_units

ZERO = Decimal(0)
_TENTH = Decimal("0.1")
# Different things without a price that are listed one by one; what comes after is counted together.
UNPRICED_LISTED = 1_000
OTHER_VALUES = "(others)"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A tenant's billing period under present and other prices, in `currency`.

    `billed` is what its invoices came to (None where there is none), `present` and `new` what the same usage costs by
    the prices held and by the others, before coupons, credits and tax. `note` says why the two cannot be compared; both
    are zero then.
    """

    tenant_id: str
    period: str
    currency: str
    plans: str
    new_plans: str
    billed: Decimal | None
    present: Decimal
    new: Decimal
    note: str = ""

    @property
    def difference(self) -> Decimal:
        """How much more the other prices come to."""
        return self.new - self.present


@dataclass
class Sums:
    """Sums over tenant-periods that could be compared."""

    periods: int = 0
    billed: Decimal = ZERO
    present: Decimal = ZERO
    new: Decimal = ZERO

    @property
    def difference(self) -> Decimal:
        """The change of revenue."""
        return self.new - self.present

    def add(self, other: Sums) -> None:
        """Add other sums."""
        self.periods += other.periods
        self.billed += other.billed
        self.present += other.present
        self.new += other.new


@dataclass(frozen=True, slots=True)
class Mover:
    """A tenant over all of its periods."""

    tenant_id: str
    currency: str
    present: Decimal
    new: Decimal

    @property
    def difference(self) -> Decimal:
        """How much more the tenant would pay."""
        return self.new - self.present


@dataclass
class OfCurrency:
    """What one currency comes to: sums, how many tenants pay more, less and the same, and those who move most."""

    sums: Sums = field(default_factory=Sums)
    more: int = 0
    less: int = 0
    unchanged: int = 0
    charges: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    most: list[Mover] = field(default_factory=list)
    least: list[Mover] = field(default_factory=list)


@dataclass
class Unpriced:
    """Usage without a price under the other prices: in how many periods, and in how many of them it has none now."""

    quantity: Decimal = ZERO
    unit: str = ""
    periods: int = 0
    without_price_now: int = 0

    def add(self, other: Unpriced) -> None:
        """Add other usage of the same kind."""
        self.quantity += other.quantity
        self.unit = self.unit or other.unit
        self.periods += other.periods
        self.without_price_now += other.without_price_now


@dataclass
class Totals:
    """All that a simulation comes to, beside its rows; `top` movers are kept either way."""

    top: int = 20
    tenants: int = 0
    by_currency: dict[str, OfCurrency] = field(default_factory=dict)
    # By meter and values of the dimensions that decide a price ("" where the meter has no price at all).
    unpriced: dict[tuple[str, str], Unpriced] = field(default_factory=dict)
    not_compared: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add_tenant(self, rows: Iterable[Comparison]) -> None:
        """Add a tenant's periods."""
        self.tenants += 1
        movers: dict[str, tuple[str, Decimal, Decimal]] = {}
        for row in rows:
            if row.note:
                self._leave_out(row.note, row.tenant_id, 1)
                continue
            found = self.by_currency.setdefault(row.currency, OfCurrency())
            found.sums.add(Sums(1, row.billed or ZERO, row.present, row.new))
            _, present, new = movers.get(row.currency, ("", ZERO, ZERO))
            movers[row.currency] = row.tenant_id, present + row.present, new + row.new
        for currency, (tenant_id, present, new) in movers.items():
            self._move(self.by_currency[currency], Mover(tenant_id, currency, present, new))

    def add_charge(self, currency: str, charge_id: str, present: Decimal, new: Decimal) -> None:
        """Add what a charge comes to under present and other prices."""
        charges = self.by_currency.setdefault(currency, OfCurrency()).charges
        before = charges.get(charge_id, (ZERO, ZERO))
        charges[charge_id] = before[0] + present, before[1] + new

    def add_unpriced(self, meter_id: str, values: str, found: Unpriced) -> None:
        """Add usage without a price."""
        key = (meter_id, values)
        if key not in self.unpriced and len(self.unpriced) >= UNPRICED_LISTED:
            key = (meter_id, OTHER_VALUES)
        self.unpriced.setdefault(key, Unpriced()).add(found)

    def add(self, other: Totals) -> None:
        """Add the totals of further tenants."""
        self.tenants += other.tenants
        for currency, theirs in other.by_currency.items():
            mine = self.by_currency.setdefault(currency, OfCurrency())
            mine.sums.add(theirs.sums)
            mine.more += theirs.more
            mine.less += theirs.less
            mine.unchanged += theirs.unchanged
            for charge_id, (present, new) in theirs.charges.items():
                self.add_charge(currency, charge_id, present, new)
            mine.most = self._first([*mine.most, *theirs.most], rising=False)
            mine.least = self._first([*mine.least, *theirs.least], rising=True)
        for (meter_id, values), unpriced in other.unpriced.items():
            self.add_unpriced(meter_id, values, unpriced)
        for note, count in other.not_compared.items():
            self._leave_out(note, other.examples[note], count)

    def _move(self, found: OfCurrency, mover: Mover) -> None:
        if mover.difference > 0:
            found.more += 1
            found.most = self._first([*found.most, mover], rising=False)
        elif mover.difference < 0:
            found.less += 1
            found.least = self._first([*found.least, mover], rising=True)
        else:
            found.unchanged += 1

    def _first(self, movers: list[Mover], *, rising: bool) -> list[Mover]:
        sign = 1 if rising else -1
        return sorted(movers, key=lambda mover: (sign * mover.difference, mover.tenant_id))[: self.top]

    def _leave_out(self, note: str, example: str, count: int) -> None:
        self.not_compared[note] = self.not_compared.get(note, 0) + count
        self.examples.setdefault(note, example)


def money(amount: Decimal, currency: str) -> str:
    """Write an amount with all decimal places of its currency; sums of nothing have none."""
    return f"{amount:.{minor_units(currency)}f}"


def percent(difference: Decimal, present: Decimal) -> Decimal | None:
    """Return a difference in percent of the present amount, to a tenth; None where nothing is paid at present."""
    return (difference * 100 / present).quantize(_TENTH, rounding=ROUND_HALF_UP) if present else None
