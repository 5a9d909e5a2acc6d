"""Rates a billing period of a subscription's timeline: what is due in it, for which time, by which plan version. Pure.

- Phases with the same plan, version and overrides are one *holding*. Its usage in all its windows is rated together,
  once, with included quantities and tiers whole: changing to a plan and back buys no second allowance.
- A fee is charged by the share of its own period in which the holding was active; trials and pauses cost no fees. Usage
  counts in a pause, and in a trial unless the trial covers all.
- Fees of at most the billing period's length are for that period (a month's in a quarter for its three months). Longer
  ones run from the day the subscription first held their plan, and fall due with the billing period in which they begin
  (in advance) or end (in arrears; also with the end of the holding).
- What is due once falls due with the billing period in which it was first held outside of a trial.
- `ahead` asks for what is billed before a period begins: fees and fixed parts in advance, nothing of usage.

So every amount follows from the timeline and usage alone; whoever asks again, however much later, gets the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from core.calendar import Calendar
from core.errors import must_hold
from core.money import round_to_minor
from core.period import Period
from rating.domain.cycle import Cycle, Interval
from rating.domain.digest import digest_of
from rating.domain.extent import Extent
from rating.domain.fine_usage import Entries, FineUsage, fine_usage_of, rows_of, wanted_by
from rating.domain.plan import Charge, Plan
from rating.domain.price import Basis, Dimensions, plain
from rating.domain.proration import Convention, share
from rating.domain.timeline import Held, Phase, State, Timeline
from rating.domain.usage import UsageRow, UsageTotals
from rating.domain.windows import Windows, join_windows
from rating.rate_charges import RatedLine, rate_bounds, rate_charge

PlanOf = Callable[[str, int, Mapping[str, Any]], Plan]
_ZERO, _ONE, _NOTHING = Decimal(0), Decimal(1), Fraction(0)
_FEES = (Basis.FIXED, Basis.LICENSED)


@dataclass(frozen=True, slots=True)
class PlanReference:
    """A plan version under certain overrides, as a subscription holds it; `text` stands for it in keys for ever."""

    plan_id: str
    version: int
    overrides: Mapping[str, Any]
    is_add_on: bool = False

    @property
    def text(self) -> str:
        """`lite@3`, with the first digits of the overrides' digest if there are any; an add-on begins with a `+`."""
        overridden = f"+{self.identity[2][:12]}" if self.overrides else ""
        return f"{'+' if self.is_add_on else ''}{self.plan_id}@{self.version}{overridden}"

    @property
    def identity(self) -> tuple[str, int, str]:
        """Plan, version and digest of the overrides: what has the same has the same prices."""
        return (self.plan_id, self.version, digest_of(dict(self.overrides)) if self.overrides else "")


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee that falls due: what it is for, and by quantity (seats) the share of that period it is charged for."""

    charge: Charge
    own: Period
    shares: tuple[tuple[Decimal, Fraction], ...]


@dataclass(frozen=True, slots=True)
class Holding:
    """What is due of one plan version in a billing period.

    `windows` is where its usage is rated (None: nowhere, or not yet), `share` the part of the period in which it was
    active, `quantity` the last one held in it, `starting` the charges whose start lies in the period. `phases` are the
    stretches in which it was held, cut to the period.
    """

    reference: PlanReference
    plan: Plan
    period: Period
    time_zone: str
    phases: tuple[Phase, ...]
    windows: Windows | None
    share: Fraction
    quantity: Decimal
    fees: tuple[Fee, ...]
    starting: frozenset[str]
    ahead: bool = False

    @property
    def usage_charges(self) -> tuple[Charge, ...]:
        """The charges of usage, in the plan's order."""
        return tuple(charge for charge in self.plan.charges if charge.basis is Basis.USAGE)

    @property
    def wanted(self) -> frozenset[FineUsage]:
        """The usage it needs beside totals."""
        return wanted_by(self.usage_charges)


@dataclass(frozen=True, slots=True)
class UsageOfHolding:
    """A holding's usage in its windows: totals, and as fine as its prices ask."""

    rows: Iterable[UsageRow] = ()
    entries: Entries = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DueLine:
    """A rated line and the period that it is for."""

    rated: RatedLine
    own: Period


@dataclass(frozen=True, slots=True)
class HoldingLines:
    """A holding's lines in the plan's order, usage whose dimension values have no price, and usage of other meters."""

    holding: Holding
    lines: tuple[DueLine, ...]
    unpriced: tuple[UsageRow, ...]
    foreign: tuple[UsageRow, ...]


def holdings_of(timeline: Timeline, period: Period, plan_of: PlanOf, *, ahead: bool = False) -> list[Holding]:
    """Return what is due in one of the timeline's billing periods, the subscription's own plans first.

    `plan_of` returns a plan version with overrides laid over it; it is called for every version ever held.
    """
    held = _held_phases(timeline)
    plans = {text: plan_of(one.plan_id, one.version, one.overrides) for text, (one, _) in held.items()}
    begun = _begun(held, plans)
    found = []
    for text, (reference, phases) in held.items():
        cut = _Cut(timeline, period, begun, ahead=ahead)
        holding = cut.holding(reference, plans[text], phases)
        if holding.fees or holding.windows is not None or (ahead and holding.phases and _has_advance(plans[text])):
            found.append(holding)
    return sorted(found, key=lambda one: one.reference.is_add_on)


def rate_holding(holding: Holding, usage: UsageOfHolding) -> HoldingLines:
    """Return the lines of a holding; `usage` is cut to its windows already.

    Plan minimums and commitments count what is due for the same period, in advance or not. Raises `InvalidInputError`
    (`negative_usage`) as `rate_charge` does.
    """
    plan = holding.plan
    fees: dict[str, list[Fee]] = {}
    for fee in holding.fees:
        fees.setdefault(fee.charge.charge_id, []).append(fee)
    totals = UsageTotals(() if holding.ahead else usage.rows)
    lines: list[DueLine] = []
    unpriced: list[UsageRow] = []
    priced: set[str] = set()
    for charge in plan.charges:
        for fee in fees.get(charge.charge_id, ()):
            lines += [DueLine(line, fee.own) for line in _rate_fee(holding, fee)]
        if charge.meter is not None and (holding.windows is not None or (holding.ahead and charge.in_advance)):
            found, missing = _rate_usage(holding, charge, totals, usage.entries)
            lines += [DueLine(line, holding.period) for line in found]
            unpriced += missing
            priced.add(charge.meter.meter_id)
    if not holding.ahead and holding.share:
        rated = [line.rated for line in lines]
        bounds = rate_bounds(plan.charges, plan.currency, rated, _extent(holding, holding.share))
        lines += [DueLine(line, holding.period) for line in bounds]
    foreign = [
        UsageRow(meter_id, dimensions, quantity)
        for meter_id in totals.meters()
        if meter_id not in priced
        for dimensions, quantity in totals.of_meter(meter_id, ()).items()
    ]
    return HoldingLines(holding, tuple(lines), _in_order(unpriced), _in_order(foreign))


def references_of(timeline: Timeline) -> list[PlanReference]:
    """Return every plan version under its overrides that is ever held, in the order in which it first is."""
    return [reference for reference, _ in _held_phases(timeline).values()]


def period_name(cycle: Cycle, period: Period) -> str:
    """Return what a billing period is called: its month (`2026-10`) where it is one, else its first local day."""
    first = Calendar(cycle.time_zone).local_day(period.start)
    is_month = cycle.interval is Interval.MONTH and cycle.anchor.day == 1
    return first.isoformat()[:7] if is_month else first.isoformat()


class _Cut:
    """Cuts one holding to a billing period."""

    def __init__(
        self, timeline: Timeline, period: Period, begun: Mapping[tuple[str, str], datetime], *, ahead: bool
    ) -> None:
        self._timeline, self._period, self._begun, self._ahead = timeline, period, begun, ahead
        self._zone = timeline.cycle.time_zone

    def holding(self, reference: PlanReference, plan: Plan, phases: Sequence[_Held]) -> Holding:
        within = [part for one in phases if (part := one.within(self._period)) is not None]
        rated = [one for one in within if one.state is not State.TRIAL or plan.trial_covers == "fees"]
        # An add-on without usage prices has no business with usage; of a plan, usage it does not price is reported.
        looks = not reference.is_add_on or any(charge.basis is Basis.USAGE for charge in plan.charges)
        windows = join_windows(one.period for one in rated) if looks and not self._ahead else None
        starting = {
            charge.charge_id
            for charge in plan.charges
            if self._begun.get((reference.plan_id, charge.charge_id), self._period.end) in self._period
        }
        shares = self._shares(within, self._period, plan.proration)
        return Holding(
            reference=reference,
            plan=plan,
            period=self._period,
            time_zone=self._zone,
            phases=tuple(one.phase for one in within),
            windows=windows,
            share=sum(shares.values(), _NOTHING),
            quantity=within[-1].quantity if within else _ONE,
            fees=tuple(self._fees(reference, plan, phases)),
            starting=frozenset(starting),
            ahead=self._ahead,
        )

    def _fees(self, reference: PlanReference, plan: Plan, phases: Sequence[_Held]) -> Iterator[Fee]:
        for charge in plan.charges:
            if charge.basis not in _FEES:
                continue
            for own in self._own_periods(charge, self._begun.get((reference.plan_id, charge.charge_id)), phases):
                shares = self._once(phases, own) if charge.interval is None else self._recurring(charge, phases, own)
                if any(shares.values()):
                    yield Fee(charge, own, tuple(sorted(shares.items())))

    def _own_periods(self, charge: Charge, begun: datetime | None, phases: Sequence[_Held]) -> list[Period]:
        """Return the periods of a fee that fall due with the billing period."""
        cycle, period = self._timeline.cycle, self._period
        if begun is None or (self._ahead and not charge.in_advance):
            return []
        if charge.interval is None:
            return [period] if begun in period and not self._ahead else []
        if charge.interval.months <= cycle.interval.months:
            return list(Cycle(charge.interval, cycle.anchor, cycle.time_zone).periods(period))
        if self._ahead:
            return []
        return [own for own in self._long_periods(charge.interval, begun) if self._is_due(charge, own, phases)]

    def _long_periods(self, interval: Interval, begun: datetime) -> Iterator[Period]:
        """Yield the periods of a fee longer than the billing period, from when it was first held on."""
        if begun >= self._period.end:
            return
        cycle = Cycle(interval, Calendar(self._zone).local_day(begun), self._zone)
        for own in cycle.periods(Period(begun, self._period.end)):
            yield Period(max(own.start, begun), own.end)

    def _is_due(self, charge: Charge, own: Period, phases: Sequence[_Held]) -> bool:
        if charge.in_advance:
            return own.start in self._period
        ends = [part.phase.end for one in phases if (part := one.within(own)) is not None]
        return bool(ends) and self._period.start < max(end for end in ends if end is not None) <= self._period.end

    def _once(self, phases: Sequence[_Held], own: Period) -> dict[Decimal, Fraction]:
        """Return what is due once, whole, for the quantity held at the start."""
        first = next((part for one in phases if one.is_paying and (part := one.within(own)) is not None), None)
        return {first.quantity: Fraction(1)} if first else {}

    def _recurring(self, charge: Charge, phases: Sequence[_Held], own: Period) -> dict[Decimal, Fraction]:
        parts = [part for one in phases if (part := one.within(own)) is not None]
        return self._shares(parts, own, charge.proration)

    def _shares(self, parts: Sequence[_Held], own: Period, convention: Convention | None) -> dict[Decimal, Fraction]:
        """Return by quantity the share of `own` in which it was held and active."""
        convention = convention or self._timeline.convention_in(own)
        whole = own
        if convention is Convention.NONE and (held := self._timeline.within(own)):
            # Whoever holds the first instant that anybody holds pays for all of it.
            whole = Period(held[0].start, own.end)
        shares: dict[Decimal, Fraction] = {}
        for part in parts:
            if part.is_active:
                found = share(part.period, whole, convention, self._zone)
                shares[part.quantity] = shares.get(part.quantity, _NOTHING) + found
        return shares


@dataclass(frozen=True, slots=True)
class _Held:
    """A stretch in which a plan version was held in one quantity."""

    phase: Phase
    quantity: Decimal

    @property
    def state(self) -> State:
        return self.phase.held.state

    @property
    def is_active(self) -> bool:
        return self.state is State.ACTIVE

    @property
    def is_paying(self) -> bool:
        return self.state is not State.TRIAL

    @property
    def period(self) -> Period:
        return self.phase.period

    def within(self, period: Period) -> _Held | None:
        phase = self.phase.within(period)
        return None if phase is None else replace(self, phase=phase)


def _held_phases(timeline: Timeline) -> dict[str, tuple[PlanReference, list[_Held]]]:
    """Return every plan version that is ever held, by its reference's text, with the stretches it is held in."""
    found: dict[str, tuple[PlanReference, list[_Held]]] = {}
    for phase in timeline.phases:
        for reference, quantity in _references(phase.held):
            _, phases = found.setdefault(reference.text, (reference, []))
            phases.append(_Held(phase, quantity))
    return found


def _references(held: Held) -> Iterator[tuple[PlanReference, Decimal]]:
    yield PlanReference(held.plan_id, held.plan_version, held.overrides), held.quantity
    for one in held.add_ons:
        yield PlanReference(one.plan_id, one.plan_version, one.overrides, is_add_on=True), one.quantity


def _begun(
    held: Mapping[str, tuple[PlanReference, list[_Held]]], plans: Mapping[str, Plan]
) -> dict[tuple[str, str], datetime]:
    """Return when each plan's charge was first held outside of a trial: a new version begins nothing anew."""
    found: dict[tuple[str, str], datetime] = {}
    for text, (reference, phases) in held.items():
        starts = [one.phase.start for one in phases if one.is_paying]
        if not starts:
            continue
        for charge in plans[text].charges:
            key = (reference.plan_id, charge.charge_id)
            found[key] = min(found.get(key, starts[0]), *starts)
    return found


def _has_advance(plan: Plan) -> bool:
    return any(charge.in_advance and charge.basis is Basis.USAGE for charge in plan.charges)


def _extent(holding: Holding, due: Fraction, quantity: Decimal | None = None, *, starts: bool = False) -> Extent:
    return Extent(
        share=due,
        licensed=holding.quantity if quantity is None else quantity,
        time_zone=holding.time_zone,
        starts=starts,
    )


def _rate_fee(holding: Holding, fee: Fee) -> list[RatedLine]:
    """Rate a fee by each quantity it was held in; a fixed amount of an add-on is due once per piece."""
    charge, currency = fee.charge, holding.plan.currency
    starts = charge.charge_id in holding.starting
    by_quantity = fee.shares
    if not charge.licensed and not holding.reference.is_add_on:
        by_quantity = ((_ONE, sum((part for _, part in fee.shares), _NOTHING)),)
    lines: list[RatedLine] = []
    for quantity, due in by_quantity:
        if due == 0:
            continue
        rated, _ = rate_charge(charge, currency, {}, extent=_extent(holding, due, quantity, starts=starts))
        if charge.licensed:
            rated = [replace(line, part=_part_of(line.part, quantity)) for line in rated]
        elif quantity != 1:
            rated = [_times(line, quantity, currency) for line in rated]
        lines += rated
    return lines


def _times(line: RatedLine, quantity: Decimal, currency: str) -> RatedLine:
    """Return a fixed line for several pieces of an add-on; rounded anew, once."""
    exact = line.exact_amount * quantity
    return replace(
        line,
        part=_part_of(line.part, quantity),
        description=f"{line.description} × {plain(quantity)}",
        quantity=line.quantity * quantity,
        exact_amount=exact,
        amount=round_to_minor(exact, currency),
        steps=(*line.steps, f"{plain(line.exact_amount)} × {plain(quantity)} = {plain(exact)}"),
    )


def _part_of(part: str, quantity: Decimal) -> str:
    return f"{part}x{plain(quantity)}"


def _rate_usage(
    holding: Holding, charge: Charge, totals: UsageTotals, entries: Entries
) -> tuple[list[RatedLine], list[UsageRow]]:
    meter = charge.meter
    must_hold(meter is not None, f"charge {charge.charge_id} has no meter")
    assert meter is not None
    wanted = fine_usage_of(charge)
    fine = entries.get(wanted, ()) if wanted is not None and not holding.ahead else ()
    # Totals of the very entries that are priced, so that they cannot disagree.
    of_meter = (UsageTotals(rows_of(meter.meter_id, fine)) if wanted is not None else totals).of_meter(
        meter.meter_id, charge.price.split_by
    )
    extent = _extent(holding, holding.share, starts=charge.charge_id in holding.starting)
    lines, missing = rate_charge(charge, holding.plan.currency, of_meter, fine, extent)
    return lines, [UsageRow(meter.meter_id, dimensions, quantity) for dimensions, quantity in missing if quantity]


def _in_order(rows: Iterable[UsageRow]) -> tuple[UsageRow, ...]:
    merged: dict[tuple[str, Dimensions], Decimal] = {}
    for row in rows:
        key = (row.meter_id, row.dimensions)
        merged[key] = merged.get(key, _ZERO) + row.quantity
    return tuple(
        UsageRow(meter_id, dimensions, quantity)
        for (meter_id, dimensions), quantity in sorted(merged.items())
        if quantity
    )
