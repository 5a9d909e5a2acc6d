"""Rates what tenants really used under other prices, with the functions that invoices are made with.

Present and other prices see the same usage of the same billing periods, so their difference is that of the prices.
Coupons, credits and tax are left out of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from core.calendar import Calendar
from core.errors import InvalidInputError
from core.meters import Meter
from core.period import Period
from rating.domain.cycle import Cycle
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.other_prices import OtherPrices, PlanOf
from rating.domain.price_comparison import ZERO, Comparison, Totals, Unpriced
from rating.domain.timeline import lay_contracts
from rating.domain.usage import UsageRow
from rating.domain.windows import Windows
from rating.kept_holdings import KeptHoldings
from rating.rate_timeline import Holding, HoldingLines, UsageOfHolding, period_name, rate_holding
from rating.simulate_ports import History, Subscribed, UsageHistory

_ADAY = timedelta(days=1)
# Why a tenant's period cannot be compared.
NOT_OVER = "the billing period is not over yet"
OTHER_CURRENCY = "the other prices are in another currency"
PRICED_TWICE = "two subscriptions would price the same meter"


@dataclass(frozen=True, slots=True)
class Question:
    """What is simulated: billing periods that begin in the months `[first, last]`, as seen at `now`."""

    first: date
    last: date
    now: datetime
    other: OtherPrices
    top: int = 20

    @property
    def span(self) -> Period:
        """The months in UTC with a day more on either side, for the time zones."""
        start = datetime.combine(self.first, datetime.min.time(), tzinfo=self.now.tzinfo)
        end = datetime.combine(_month_after(self.last), datetime.min.time(), tzinfo=self.now.tzinfo)
        return Period(start - _ADAY, end + _ADAY)

    def holds(self, first_day: date) -> bool:
        """Tell whether a billing period with this first local day is asked for."""
        return self.first <= first_day < _month_after(self.last)


class Prices:
    """Both sides' plans, and the meters they price; remembers what tenants who hold alike have in common."""

    def __init__(self, present: PlanOf, other: PlanOf, meters: Mapping[str, Meter]) -> None:
        self.present, self.other, self.meters, self.kept = present, other, meters, KeptHoldings()


@dataclass(frozen=True, slots=True)
class _Due:
    """A subscription's billing period: what is held, and what would be."""

    tenant_id: str
    period: Period
    name: str
    present: Sequence[Holding]
    other: Sequence[Holding]


_Key = tuple[Period, Windows]


async def simulate_prices(
    tenant_ids: Sequence[str], question: Question, *, history: History, usage: UsageHistory, prices: Prices
) -> tuple[list[Comparison], Totals]:
    """Return the rows of these tenants, by tenant and period, and what they come to."""
    subscribed = await history.subscriptions(tenant_ids)
    billed = await history.billed(tenant_ids, question.span)
    due: dict[str, list[_Due]] = {}
    skipped: dict[str, list[Comparison]] = {}
    for one in subscribed:
        for found in _due(one, question, prices):
            if isinstance(found, Comparison):
                skipped.setdefault(found.tenant_id, []).append(found)
            else:
                due.setdefault(found.tenant_id, []).append(found)
    used = await _usage_of([one for found in due.values() for one in found], usage, prices.meters)
    rows: list[Comparison] = []
    totals = Totals(question.top)
    for tenant_id in tenant_ids:
        of_tenant = [*skipped.get(tenant_id, ())]
        for name, together in _by_period(due.get(tenant_id, ())).items():
            of_tenant.append(_compare(tenant_id, name, together, used, billed, totals, prices.meters))
        if of_tenant:
            of_tenant.sort(key=lambda row: row.period)
            rows += of_tenant
            totals.add_tenant(of_tenant)
    return rows, totals


def _due(subscribed: Subscribed, question: Question, prices: Prices) -> Iterable[_Due | Comparison]:
    raw = subscribed.timeline
    present = lay_contracts(raw, subscribed.contracts)
    other = question.other.timeline_instead(raw)
    if question.other.contracts and subscribed.contracts:
        other = lay_contracts(other, subscribed.contracts)
    for period, first_day, name in _periods(raw.cycle, question.span):
        if not question.holds(first_day) or not present.within(period):
            continue
        if period.end > question.now:
            yield Comparison(raw.tenant_id, name, "", "", "", None, ZERO, ZERO, NOT_OVER)
            continue
        try:
            held = prices.kept.of(present, period, prices.present)
            instead = prices.kept.of(other, period, prices.other)
        except InvalidInputError as refused:
            note = f"prices cannot be read: {refused.faults[0].code}"
            yield Comparison(raw.tenant_id, name, "", "", "", None, ZERO, ZERO, note)
            continue
        yield _Due(raw.tenant_id, period, name, held, instead)


async def _usage_of(
    due: Sequence[_Due], usage: UsageHistory, meters: Mapping[str, Meter]
) -> Callable[[str, Holding], UsageOfHolding]:
    """Read usage once per distinct windows: nearly all tenants hold their plan for the whole period."""
    tenants: dict[_Key, dict[str, None]] = {}
    wanted: dict[_Key, set[FineUsage]] = {}
    # By the object: many tenants share one, and all of them live as long as this runs.
    known: dict[int, frozenset[FineUsage]] = {}
    for one in due:
        for holding in (*one.present, *one.other):
            if holding.windows is not None:
                key = (holding.period, holding.windows)
                tenants.setdefault(key, {})[one.tenant_id] = None
                needs = known.get(id(holding))
                if needs is None:
                    needs = known[id(holding)] = holding.wanted
                wanted.setdefault(key, set()).update(needs)
    rows: dict[_Key, Mapping[str, Sequence[UsageRow]]] = {}
    fine: dict[_Key, Mapping[str, Entries]] = {}
    for key, ids in tenants.items():
        period, windows = key
        rows[key] = await usage.usage(list(ids), windows, meters=meters, month=period, until=period.end)
        if wanted[key]:
            fine[key] = await usage.fine_usage(list(ids), windows, wanted[key], meters=meters)

    def of(tenant_id: str, holding: Holding) -> UsageOfHolding:
        if holding.windows is None:
            return UsageOfHolding()
        key = (holding.period, holding.windows)
        return UsageOfHolding(rows[key].get(tenant_id, ()), fine.get(key, {}).get(tenant_id, {}))

    return of


def _compare(
    tenant_id: str,
    name: str,
    together: Sequence[_Due],
    used: Callable[[str, Holding], UsageOfHolding],
    billed: Mapping[tuple[str, datetime], Decimal],
    totals: Totals,
    meters: Mapping[str, Meter],
) -> Comparison:
    """Compare all that a tenant holds in periods of one name."""
    present = [holding for one in together for holding in one.present]
    other = [holding for one in together for holding in one.other]
    plans, new_plans = _names(present), _names(other)
    starts = {one.period.start for one in together}
    amounts = [billed[tenant_id, start] for start in starts if (tenant_id, start) in billed]
    was_billed = sum(amounts, ZERO) if amounts else None
    currencies = {holding.plan.currency for holding in present}
    currency = min(currencies, default="")

    def left_out(note: str) -> Comparison:
        return Comparison(tenant_id, name, currency, plans, new_plans, was_billed, ZERO, ZERO, note)

    if {holding.plan.currency for holding in other} - currencies or len(currencies) > 1:
        return left_out(OTHER_CURRENCY)
    if _prices_twice(other) and not _prices_twice(present):
        return left_out(PRICED_TWICE)
    try:
        rated_now = [rate_holding(holding, used(tenant_id, holding)) for holding in present]
        rated = rated_now
        if not _alike(present, other):
            rated = [rate_holding(holding, used(tenant_id, holding)) for holding in other]
    except InvalidInputError as refused:
        return left_out(f"cannot be rated: {refused.faults[0].code}")
    for charge_id, (was, would) in _by_charge(rated_now, rated).items():
        totals.add_charge(currency, charge_id, was, would)
    without_now = _unpriced(rated_now)
    of_meter_now: dict[str, Decimal] = {}
    for (meter_id, _), quantity in without_now.items():
        of_meter_now[meter_id] = of_meter_now.get(meter_id, ZERO) + quantity
    for (meter_id, values), quantity in _unpriced(rated).items():
        found = Unpriced(quantity, meters[meter_id].unit if meter_id in meters else "", 1)
        # What has no price now may have none by its values, or for the whole meter.
        known = (meter_id, values) in without_now or (meter_id, "") in without_now
        found.without_price_now = int(known or (not values and of_meter_now.get(meter_id) == quantity))
        totals.add_unpriced(meter_id, values, found)
    return Comparison(tenant_id, name, currency, plans, new_plans, was_billed, _total(rated_now), _total(rated))


@lru_cache(maxsize=10_000)
def _periods(cycle: Cycle, span: Period) -> tuple[tuple[Period, date, str], ...]:
    """Return a cycle's periods with their first local days and names: of one cycle are many subscriptions."""
    calendar = Calendar(cycle.time_zone)
    periods = cycle.periods(span)
    return tuple((period, calendar.local_day(period.start), period_name(cycle, period)) for period in periods)


def _alike(present: Sequence[Holding], other: Sequence[Holding]) -> bool:
    """Tell whether the other prices are those held: whoever they leave alone need not be rated twice."""
    return len(present) == len(other) and all(
        one.plan.digest == two.plan.digest and replace(two, plan=one.plan, reference=one.reference) == one
        for one, two in zip(present, other, strict=True)
    )


def _by_period(due: Iterable[_Due]) -> dict[str, list[_Due]]:
    found: dict[str, list[_Due]] = {}
    for one in due:
        found.setdefault(one.name, []).append(one)
    return found


def _names(holdings: Iterable[Holding]) -> str:
    return " ".join(dict.fromkeys(holding.reference.text for holding in holdings))


def _prices_twice(holdings: Sequence[Holding]) -> bool:
    """Tell whether two of the holdings price a meter at the same time."""
    seen: dict[str, list[Period]] = {}
    for holding in holdings if len(holdings) > 1 else ():
        windows = holding.windows
        if windows is None:
            continue
        own = (windows,) if isinstance(windows, Period) else windows
        for meter_id in {charge.meter.meter_id for charge in holding.usage_charges if charge.meter}:
            before = seen.setdefault(meter_id, [])
            if any(one.start < two.end and two.start < one.end for one in own for two in before):
                return True
            before += own
    return False


def _by_charge(present: Sequence[HoldingLines], other: Sequence[HoldingLines]) -> dict[str, tuple[Decimal, Decimal]]:
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for rated in present:
        for line in rated.lines:
            was, would = found.get(line.rated.charge_id, (ZERO, ZERO))
            found[line.rated.charge_id] = was + line.rated.amount, would
    for rated in other:
        for line in rated.lines:
            was, would = found.get(line.rated.charge_id, (ZERO, ZERO))
            found[line.rated.charge_id] = was, would + line.rated.amount
    return found


def _unpriced(rated: Sequence[HoldingLines]) -> dict[tuple[str, str], Decimal]:
    """Return usage without a price by meter and the values that have none ("" for a meter that nothing prices)."""
    priced = {charge.meter.meter_id for one in rated for charge in one.holding.usage_charges if charge.meter}
    found: dict[tuple[str, str], Decimal] = {}
    for one in rated:
        for row in one.unpriced:
            values = ", ".join(f"{name} {value or '(not named)'}" for name, value in row.dimensions)
            key = (row.meter_id, values)
            found[key] = found.get(key, ZERO) + row.quantity
        for row in one.foreign:
            if row.meter_id not in priced and row.quantity:
                found[row.meter_id, ""] = found.get((row.meter_id, ""), ZERO) + row.quantity
    return found


def _total(rated: Iterable[HoldingLines]) -> Decimal:
    return sum((line.rated.amount for one in rated for line in one.lines), ZERO)


def _month_after(first: date) -> date:
    return (first.replace(day=1) + timedelta(days=32)).replace(day=1)
