"""Proposes every line a subscription owes for a period, with the evidence that lets anyone re-derive it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BrokenInvariantError, InvalidInputError
from core.meters import Meter
from core.period import Period
from invoicing.domain.lines import Line, item_key
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.ports import Contract
from rating.domain.override_plan import override_plan
from rating.domain.plan import Plan, parse_plan
from rating.domain.price import plain
from rating.domain.term import Term
from rating.domain.usage import UsageRow
from rating.rate_charges import ENGINE_VERSION, RatedLine, rate

# The query behind the evidence: invoicing.adapters.clickhouse.USAGE_OF_PERIOD.
USAGE_QUERY = "usage_of_period"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a subscription owes for a period in all, and usage its plan has no price for."""

    plan: Plan
    lines: tuple[Line, ...]
    unpriced: tuple[UsageRow, ...]


def read_contract(contract: Contract, meters: Mapping[str, Meter]) -> Plan:
    """Return the contract's plan; a stored plan that cannot be read is our own mistake (`BrokenInvariantError`)."""
    try:
        document = override_plan(contract.document, contract.overrides)
        return parse_plan(contract.plan_id, document, meters)
    except InvalidInputError as error:
        raise BrokenInvariantError(f"stored plan {contract.plan_id} v{contract.plan_version}: {error}") from error


def propose_lines(contract: Contract, plan: Plan, period: Period, evidence: UsageEvidence) -> Proposal:
    """Return all lines of the period; `evidence` is the usage of the part of it that the contract covers."""
    term = Term(contract.started_at, contract.ended_at)
    rating = rate(plan, evidence.totals(), period, term)
    window = term.within(period)
    shared: dict[str, Any] = {
        "engine_version": ENGINE_VERSION,
        "plan": {"id": contract.plan_id, "version": contract.plan_version, "digest": plan.digest},
        "query": {"name": USAGE_QUERY, "window": str(window)},
        "usage_digest": evidence.digest,
    }
    documents = {charge["id"]: charge for charge in plan.document["charges"]}
    lines = tuple(_line(contract, period, line, documents[line.charge_id], shared, evidence) for line in rating.lines)
    return Proposal(plan, lines, rating.unpriced)


def _line(
    contract: Contract,
    period: Period,
    rated: RatedLine,
    charge: Mapping[str, Any],
    shared: Mapping[str, Any],
    evidence: UsageEvidence,
) -> Line:
    hours = evidence.by_hour(rated.meter_id, rated.dimensions) if rated.meter_id else []
    measured = evidence.measured_total(rated.meter_id, rated.dimensions) if rated.meter_id else None
    return Line(
        item_key=item_key(contract.subscription_id, rated.charge_id, rated.part, rated.dimensions, period),
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
        evidence={
            **shared,
            "charge": charge,
            "part": rated.part,
            "per": rated.per,
            "steps": list(rated.steps),
            "hours": [[hour, plain(quantity), events] for hour, quantity, events in hours],
            **({"measured": measured.as_evidence()} if measured else {}),
        },
    )
