"""What is left of each line when negative lines are set against positive ones. Owns that netting; pure.

A charge's own discount or maximum is a negative line. Coupons and credits look at what is to be paid for a thing, so
each negative line first lowers the lines of its own charge, in proportion, and what that leaves lowers all the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from core.errors import must_hold
from core.money import allocate, from_minor, to_minor

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class LineAmount:
    """What coupons and credits need to know of an invoice line.

    `key` names the line among the others (its item key), `kind` is the line's (`fixed`, `usage`, `minimum`, …).
    `amount` is rounded to the currency's minor unit.
    """

    key: str
    charge_id: str
    meter_id: str | None
    plan_id: str
    kind: str
    amount: Decimal


def net_amounts(lines: Sequence[LineAmount], currency: str) -> dict[str, Decimal]:
    """Return by key what is to be paid for each positive line, never below zero.

    The result adds up to the sum of all lines, or to zero where that sum is negative. Every amount must be whole minor
    units, every key must stand once (`BrokenInvariantError`).
    """
    must_hold(len({line.key for line in lines}) == len(lines), "two lines share a key")
    left = {line.key: to_minor(line.amount, currency) for line in lines if line.amount > 0}
    uncovered = 0
    for charge in {(line.plan_id, line.charge_id) for line in lines if line.amount < 0}:
        own = [line for line in lines if (line.plan_id, line.charge_id) == charge]
        taken = -sum(to_minor(line.amount, currency) for line in own if line.amount < 0)
        uncovered += _lower(left, [line.key for line in own if line.amount > 0], taken, currency)
    _lower(left, list(left), uncovered, currency)
    return {key: from_minor(units, currency) for key, units in left.items()}


def sum_of(amounts: Iterable[Decimal]) -> Decimal:
    """Return the sum, an exact zero if there is nothing."""
    return sum(amounts, ZERO)


def _lower(left: dict[str, int], keys: list[str], taken: int, currency: str) -> int:
    """Take `taken` minor units off the keys in proportion to what they have left; returns what they could not cover."""
    whole = sum(left[key] for key in keys)
    covered = min(taken, whole)
    if covered == 0:
        return taken
    shares = allocate(from_minor(covered, currency), [Decimal(left[key]) for key in keys], currency)
    for key, share in zip(keys, shares, strict=True):
        left[key] -= to_minor(share, currency)
        must_hold(left[key] >= 0, "a line was lowered by more than it had")
    return taken - covered
