"""Proposes every line a subscription owes for a billing period, with the evidence that lets anyone re-derive it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from msgspec import structs

from core.errors import BrokenInvariantError, InvalidInputError, must_hold
from core.meters import Meter
from core.period import Period
from invoicing.domain.lines import Line, coupon_key, item_key
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.ports import UsageReader
from rating.domain.coupon import CouponLine, Redemption, apply_coupons
from rating.domain.fine_usage import digest_of_entries, fine_usage_of
from rating.domain.plan import Charge
from rating.domain.price import plain
from rating.domain.timeline import Held, Timeline
from rating.domain.usage import UsageRow
from rating.domain.windows import Windows, show_windows, windows_of
from rating.kept_holdings import KeptHoldings
from rating.rate_charges import ENGINE_VERSION
from rating.rate_timeline import DueLine, Holding, PlanOf, UsageOfHolding, rate_holding

# The queries behind the evidence: USAGE_OF_PERIOD of invoicing.adapters.clickhouse; rating.adapters.fine_usage.
USAGE_QUERY = "usage_of_period"
EvidenceOf = Mapping[Windows, UsageEvidence]
_NOTHING = UsageEvidence(())
# Most tenants of a run hold what others do.
_holdings = KeptHoldings()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a subscription owes for a billing period in all, coupons taken off.

    `unpriced` is usage whose dimension values have no price, `foreign` usage of meters its plans do not price, `priced`
    the meters they do. `holdings` are those with lines or usage, `evidence` is the usage that was looked at.
    """

    period: Period
    lines: tuple[Line, ...]
    unpriced: tuple[UsageRow, ...] = ()
    foreign: tuple[UsageRow, ...] = ()
    priced: frozenset[str] = frozenset()
    holdings: tuple[Holding, ...] = ()
    evidence: EvidenceOf = field(default_factory=dict)


async def propose_period(
    timeline: Timeline,
    period: Period,
    *,
    plan_of: PlanOf,
    redemptions: Iterable[Redemption],
    usage: UsageReader,
    meters: Mapping[str, Meter],
    ahead: bool = False,
) -> Proposal:
    """Read a billing period's usage and return all its lines; `ahead`: only what is billed before the period begins.

    Raises `BrokenInvariantError` for what cannot be rated.
    """
    holdings = _holdings.of(timeline, period, plan_of, ahead=ahead)
    evidence = await read_evidence(timeline.tenant_id, holdings, usage=usage, meters=meters)
    return propose_lines(timeline, period, holdings, evidence, redemptions)


async def read_evidence(
    tenant_id: str, holdings: Sequence[Holding], *, usage: UsageReader, meters: Mapping[str, Meter]
) -> dict[Windows, UsageEvidence]:
    """Return the usage behind holdings of one billing period, by the windows they rate."""
    found: dict[Windows, UsageEvidence] = {}
    for holding in holdings:
        windows = holding.windows
        if windows is None or windows in found:
            continue
        wanted = frozenset(one for other in holdings if other.windows == windows for one in other.wanted)
        evidence = await usage.usage(tenant_id, windows, meters=meters, month=holding.period)
        if wanted:
            entries = await usage.fine_usage(tenant_id, windows, wanted, meters=meters)
            evidence = replace(evidence, entries=entries)
        found[windows] = evidence
    return found


def propose_lines(
    timeline: Timeline,
    period: Period,
    holdings: Sequence[Holding],
    evidence: EvidenceOf,
    redemptions: Iterable[Redemption],
) -> Proposal:
    """Return all lines of a billing period; `evidence` has the usage of every holding's windows."""
    lines: list[Line] = []
    unpriced: list[UsageRow] = []
    foreign: dict[tuple[str, Any], UsageRow] = {}
    priced: set[str] = set()
    for holding in holdings:
        known = evidence[holding.windows] if holding.windows is not None else _NOTHING
        try:
            rated = rate_holding(holding, UsageOfHolding(known.totals(), known.entries))
        except InvalidInputError as refused:
            raise BrokenInvariantError(f"{holding.reference.text} cannot be rated: {refused}") from refused
        shared = _shared_evidence(holding, known)
        documents = {charge["id"]: charge for charge in holding.plan.document["charges"]}
        charges = {charge.charge_id: charge for charge in holding.plan.charges}
        for line in rated.lines:
            charge = charges[line.rated.charge_id]
            lines.append(_line(timeline, holding, line, charge, documents[charge.charge_id], shared, known))
        unpriced += rated.unpriced
        foreign |= {(row.meter_id, row.dimensions): row for row in rated.foreign}
        priced |= {charge.meter.meter_id for charge in holding.usage_charges if charge.meter}
    currencies = {holding.plan.currency for holding in holdings}
    must_hold(len(currencies) <= 1, f"plans in {' and '.join(sorted(currencies))} are held at once")
    for currency in currencies:
        lines += _coupon_lines(timeline, period, currency, lines, redemptions)
    rows = tuple(row for row in foreign.values() if row.meter_id not in priced)
    return Proposal(period, tuple(lines), tuple(unpriced), rows, frozenset(priced), tuple(holdings), evidence)


def _shared_evidence(holding: Holding, known: UsageEvidence) -> dict[str, Any]:
    reference = holding.reference
    shared: dict[str, Any] = {
        "engine_version": ENGINE_VERSION,
        "plan": {"id": reference.plan_id, "version": reference.version, "digest": holding.plan.digest},
        "held": [
            {
                "period": str(phase.period),
                "quantity": plain(_quantity_of(holding, phase.held)),
                "state": phase.held.state.value,
                **({"contract": list(phase.held.contract)} if phase.held.contract else {}),
            }
            for phase in holding.phases
        ],
        "settles": str(holding.period),
        "usage_digest": known.digest,
    }
    if reference.is_add_on:
        shared["add_on"] = True
    if holding.windows is not None:
        shared["query"] = {"name": USAGE_QUERY, "window": show_windows(holding.windows)}
        if len(windows_of(holding.windows)) > 1:
            shared["windows"] = [str(window) for window in windows_of(holding.windows)]
    return shared


def _quantity_of(holding: Holding, held: Held) -> Decimal:
    add_on = held.add_on(holding.reference.plan_id) if holding.reference.is_add_on else None
    return add_on.quantity if add_on else held.quantity


def _line(
    timeline: Timeline,
    holding: Holding,
    due: DueLine,
    charge: Charge,
    document: Mapping[str, Any],
    shared: Mapping[str, Any],
    known: UsageEvidence,
) -> Line:
    rated = due.rated
    measured = known.measured_total(rated.meter_id, rated.dimensions) if rated.meter_id else None
    fine = fine_usage_of(charge)
    evidence: dict[str, Any] = {
        **shared,
        "charge": document,
        "part": rated.part,
        "per": rated.per,
        "period": str(due.own),
        "steps": list(rated.steps),
        "hours": known.by_hour(rated.meter_id, rated.dimensions) if rated.meter_id else [],
    }
    if measured:
        evidence["measured"] = measured.as_evidence()
    if fine is not None and not holding.ahead:
        entries = known.entries.get(fine, ())
        evidence["fine"] = {
            "grain": fine.grain.value,
            "amount_property": fine.amount_property,
            "entries": len(entries),
            "digest": digest_of_entries(entries),
        }
    return Line(
        item_key=item_key(
            timeline.subscription_id, rated.charge_id, rated.part, rated.dimensions, due.own, holding.reference.text
        ),
        charge_id=rated.charge_id,
        kind=rated.kind,
        description=rated.description,
        meter_id=rated.meter_id,
        dimensions=rated.dimensions,
        quantity=rated.quantity,
        unit=rated.unit,
        unit_amount=rated.unit_amount,
        per=rated.per,
        exact_amount=rated.exact_amount,
        amount=rated.amount,
        price_digest=rated.price_digest,
        evidence=evidence,
        period=due.own,
        settles=holding.period.start,
    )


def _coupon_lines(
    timeline: Timeline, period: Period, currency: str, lines: Sequence[Line], redemptions: Iterable[Redemption]
) -> list[Line]:
    """Return what coupons take off, a line for each line they lower, so that shares add up whatever is billed later."""
    redeemed = list(redemptions)
    if not redeemed or not lines:
        return []
    by_key = {line.item_key: line for line in lines}
    amounts = [line.as_amount() for line in lines]
    applied = apply_coupons(amounts, redeemed, period, currency, cycle=timeline.cycle)
    return [_coupon_line(one, share.key, share.amount, by_key[share.key]) for one in applied for share in one.shares]


def _coupon_line(coupon: CouponLine, key: str, amount: Decimal, lowered: Line) -> Line:
    return structs.replace(
        lowered,
        item_key=coupon_key(coupon.redemption_id, key),
        kind="coupon",
        description=f"{coupon.name} — {lowered.description}",
        quantity=Decimal(1),
        unit="",
        unit_amount=None,
        per=1,
        exact_amount=amount,
        amount=amount,
        evidence={
            "engine_version": lowered.evidence["engine_version"],
            "plan": lowered.evidence["plan"],
            "period": lowered.evidence["period"],
            "settles": lowered.evidence["settles"],
            "per": 1,
            "steps": [*coupon.steps, f"share of {lowered.description}: {amount:f}"],
            "coupon": {
                "id": coupon.coupon_id,
                "version": coupon.coupon_version,
                "name": coupon.name,
                "redemption": coupon.redemption_id,
                "base": plain(coupon.base),
                "amount": f"{coupon.amount:f}",
                "lowers": key,
            },
        },
    )
