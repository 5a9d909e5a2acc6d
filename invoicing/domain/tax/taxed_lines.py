"""Lines with their tax. Owns rounding and shares: per group once, so that lines, groups and total agree to the cent.

Lines of the same category, rate and place are a group (EN 16931, BR-CO-17). Within it, lines that correct an earlier
invoice are taxed with what that invoice and its corrections charged before: the tax after the correction is what one
invoice over the remaining amount would charge, and this document has the difference. So a correction that takes
everything back gives exactly minus the tax, in one step or in many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

from core.errors import must_hold
from core.money import from_minor, minor_units, round_to_minor, to_minor
from invoicing.domain.tax.treatment import HUNDRED, GroupKey, TaxBehavior, TaxTreatment

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class TaxableLine:
    """A line's rounded amount, how it is taxed, and the invoice it corrects, if it corrects one."""

    amount: Decimal
    treatment: TaxTreatment
    corrects: str | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is rounded together: a group's lines of one behavior that correct the same invoice, or none."""

    corrects: str | None
    group: GroupKey
    behavior: TaxBehavior


@dataclass(frozen=True, slots=True)
class TaxedBefore:
    """What an invoice and all corrections of it charged so far: the lines' amounts and the tax of them."""

    amount: Decimal
    tax: Decimal


@dataclass(frozen=True, slots=True)
class LineTax:
    """A line's tax share. `net` is its amount without tax, `gross` with it."""

    treatment: TaxTreatment
    net: Decimal
    tax: Decimal

    @property
    def gross(self) -> Decimal:
        """What the line asks for in all."""
        return self.net + self.tax


@dataclass(frozen=True, slots=True)
class TaxGroup:
    """The lines of one category, rate and place: their sum without tax, and the tax; `treatment` is the first's."""

    treatment: TaxTreatment
    base: Decimal
    tax: Decimal


@dataclass(frozen=True, slots=True)
class TaxedLines:
    """A document's lines with their tax, in the lines' order, and the groups, highest rate first."""

    lines: tuple[LineTax, ...]
    groups: tuple[TaxGroup, ...]

    @property
    def subtotal(self) -> Decimal:
        """The sum without tax."""
        return sum((line.net for line in self.lines), _ZERO)

    @property
    def tax(self) -> Decimal:
        """The tax in all."""
        return sum((group.tax for group in self.groups), _ZERO)

    @property
    def total(self) -> Decimal:
        """The sum with tax."""
        return self.subtotal + self.tax


def tax_lines(
    lines: Sequence[TaxableLine], currency: str, *, before: Mapping[Bucket, TaxedBefore] | None = None
) -> TaxedLines:
    """Return the lines with their tax. `before` has what corrected invoices have come to so far, with corrections.

    Amounts are whole minor units of `currency` and may be negative.
    """
    known = before or {}
    buckets: dict[Bucket, list[int]] = {}
    for index, line in enumerate(lines):
        bucket = Bucket(line.corrects, line.treatment.group, line.treatment.behavior)
        buckets.setdefault(bucket, []).append(index)
    taxed: dict[int, LineTax] = {}
    for bucket, members in buckets.items():
        so_far = known.get(bucket) or TaxedBefore(_ZERO, _ZERO)
        amount = sum((lines[index].amount for index in members), _ZERO)
        tax = _tax_of(so_far.amount + amount, bucket, currency) - so_far.tax
        exact = [_exact(lines[index].amount, bucket) for index in members]
        for index, share in zip(members, _shares(tax, exact, currency), strict=True):
            line = lines[index]
            net = line.amount - share if bucket.behavior is TaxBehavior.INCLUSIVE else line.amount
            taxed[index] = LineTax(line.treatment, net, share)
    in_order = tuple(taxed[index] for index in range(len(lines)))
    result = TaxedLines(in_order, group_taxes(in_order))
    check_taxed(result, lines)
    return result


def check_taxed(taxed: TaxedLines, lines: Sequence[TaxableLine]) -> None:
    """Stop the work unless lines add up to groups and groups to the total, and prices with tax were kept."""
    bases = sum((group.base for group in taxed.groups), _ZERO)
    must_hold(bases == taxed.subtotal, "the groups' bases are not the subtotal")
    must_hold(sum((line.tax for line in taxed.lines), _ZERO) == taxed.tax, "the lines' tax is not the groups'")
    for line, one in zip(lines, taxed.lines, strict=True):
        kept = one.gross if one.treatment.behavior is TaxBehavior.INCLUSIVE else one.net
        must_hold(kept == line.amount, "a line's amount changed with its tax")


def group_taxes(lines: Sequence[LineTax]) -> tuple[TaxGroup, ...]:
    """Return the sums by category, rate and place, highest rate first."""
    found: dict[GroupKey, list[LineTax]] = {}
    for line in lines:
        found.setdefault(line.treatment.group, []).append(line)
    return tuple(
        TaxGroup(of[0].treatment, sum((one.net for one in of), _ZERO), sum((one.tax for one in of), _ZERO))
        for _, of in sorted(found.items(), key=lambda one: one[0].sort_key)
    )


def _tax_of(amount: Decimal, bucket: Bucket, currency: str) -> Decimal:
    return round_to_minor(_exact(amount, bucket), currency)


def _exact(amount: Decimal, bucket: Bucket) -> Decimal:
    rate = bucket.group.rate
    if bucket.behavior is TaxBehavior.INCLUSIVE:
        return amount * rate / (HUNDRED + rate)
    return amount * rate / HUNDRED


def _shares(tax: Decimal, exact: Sequence[Decimal], currency: str) -> list[Decimal]:
    """Split a rounded tax by the exact taxes of the lines, of either sign: largest remainder, earlier lines first.

    The shares of minus the lines are minus the shares.
    """
    whole = sum(exact, _ZERO)
    sign = -1 if whole < 0 or (whole == 0 and tax < 0) else 1
    scaled = [(sign * one).scaleb(minor_units(currency)) for one in exact]
    units = [int(one.to_integral_value(ROUND_FLOOR)) for one in scaled]
    left = sign * to_minor(tax, currency) - sum(units)
    order = sorted(range(len(units)), key=lambda index: (units[index] - scaled[index], index))
    # More than one round, or fewer than none, only where an outside service had charged something else before.
    for step in range(abs(left)):
        index = order[step % len(order)] if left > 0 else order[-1 - step % len(order)]
        units[index] += 1 if left > 0 else -1
    return [from_minor(sign * one, currency) for one in units]
