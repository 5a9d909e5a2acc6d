"""Other prices to rate real history under: another plan, a price book, changed fields, a minimum, a discount. Pure.

Prices are changed as documents and read like any catalogue, so what cannot be sold cannot be simulated either. A
contract's overrides lie over a plan of the same name only: they name that plan's charges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from core.errors import Fault, InvalidInputError
from rating.domain.digest import digest_of
from rating.domain.fields import parse_amount
from rating.domain.override_plan import merge_overrides, override_plan
from rating.domain.plan import Plan
from rating.domain.price import plain
from rating.domain.timeline import Held, Timeline

# The version of what comes from a price book or was changed: no stored version is 0.
UNSTORED = 0
WHAT_IF_MINIMUM = "what-if-minimum"
_HUNDRED = Decimal(100)
Documents = Mapping[tuple[str, int], Mapping[str, Any]]
ReadPlan = Callable[[str, Mapping[str, Any]], Plan]
PlanOf = Callable[[str, int, Mapping[str, Any]], Plan]
_PLANS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class OtherPrices:
    """What is asked for, in this order.

    `plan` (id and version) for everybody, or the `book`'s plan of the same name as the one held; `laid_over` are plans
    whose charges take the place, meter by meter, of those that a plan has; `fields` are overrides in a plan's own form;
    `minimum` a month instead of any the plan has; `discount` percent off every charge. Without `contracts` their
    overrides are left out under the other prices.
    """

    plan: tuple[str, int] | None = None
    book: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    laid_over: tuple[Mapping[str, Any], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    minimum: Decimal | None = None
    discount: Decimal | None = None
    contracts: bool = True

    def held_instead(self, held: Held) -> Held:
        """Return what is held under the other prices: an add-on keeps its prices unless the book has it."""
        add_ons = tuple(
            replace(one, plan_version=UNSTORED) if one.plan_id in self.book and self.plan is None else one
            for one in held.add_ons
        )
        if self.plan is not None:
            plan_id, version = self.plan
        elif held.plan_id in self.book:
            plan_id, version = held.plan_id, UNSTORED
        else:
            plan_id, version = held.plan_id, held.plan_version
        overrides = held.overrides if self.contracts and plan_id == held.plan_id else {}
        return replace(held, plan_id=plan_id, plan_version=version, overrides=overrides, add_ons=add_ons)

    def timeline_instead(self, timeline: Timeline) -> Timeline:
        """Return the timeline under the other prices, before contracts are laid over it."""
        phases = tuple(replace(phase, held=self.held_instead(phase.held)) for phase in timeline.phases)
        return replace(timeline, phases=phases)

    def document(self, plan_id: str, version: int, stored: Documents) -> Mapping[str, Any] | None:
        """Return the plan's document before overrides; None if there is no such version."""
        return self.book.get(plan_id) if version == UNSTORED else stored.get((plan_id, version))

    def changed(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plan's document with its charges, fields, minimum and discount changed.

        Raises `InvalidInputError` (`other_currency`) for charges in another currency than the plan's.
        """
        found = dict(document)
        for book in self.laid_over:
            found["charges"] = _laid_over(found, book)
        found = override_plan(found, self._fields_of(found))
        if self.minimum is not None:
            kept = [charge for charge in found["charges"] if charge.get("model") != "minimum"]
            found["charges"] = kept + ([_minimum(self.minimum)] if self.minimum else [])
        if self.discount:
            found["charges"] = [_discounted(charge, self.discount) for charge in found["charges"]]
        return found

    def _fields_of(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the changed fields of the charges that the plan has: a change of one it has not changes nothing."""
        own = {charge["id"] for charge in document.get("charges", ())}
        return {"charges": [charge for charge in self.fields.get("charges", ()) if charge["id"] in own]}


def plans_under(other: OtherPrices, stored: Documents, read: ReadPlan) -> PlanOf:
    """Return what resolves a plan version and overrides to the plan under the other prices; each is read once."""

    def resolve(plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
        document = _found(other.document(plan_id, version, stored), plan_id, version)
        return read(plan_id, other.changed(override_plan(document, overrides)))

    return _kept(resolve)


def plans_as_sold(stored: Documents, read: ReadPlan) -> PlanOf:
    """Return what resolves a plan version and overrides to the plan as it was sold; each is read once."""

    def resolve(plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
        document = _found(stored.get((plan_id, version)), plan_id, version)
        return read(plan_id, override_plan(document, overrides))

    return _kept(resolve)


def read_fields(texts: Iterable[str]) -> dict[str, Any]:
    """Read `cpu.unit_amount=0.06` (charge, field, value; JSON for lists and mappings) into overrides.

    Raises `InvalidInputError` (`invalid_change`) with every fault.
    """
    overrides: dict[str, Any] = {}
    faults = []
    for text in texts:
        place, is_assigned, value = text.partition("=")
        charge_id, _, name = place.rpartition(".")
        if not (is_assigned and charge_id and name):
            reason = f"expected CHARGE.FIELD=VALUE such as cpu.unit_amount=0.06, got {text[:80]!r}"
            faults.append(Fault("invalid_change", reason, "--set"))
            continue
        overrides = merge_overrides(overrides, {"charges": [{"id": charge_id, name: _value(value)}]})
    if faults:
        raise InvalidInputError(faults)
    return overrides


def read_amount(text: str | None, option: str, most: Decimal | None = None) -> Decimal | None:
    """Read an option's amount or percent, at most `most`; raises `InvalidInputError` with the option's name."""
    if text is None:
        return None
    parsed = parse_amount(text)
    if isinstance(parsed, Decimal) and most is not None and parsed > most:
        parsed = Fault("invalid_percent", f"expected at most {plain(most)}, got {text}")
    if isinstance(parsed, Fault):
        raise InvalidInputError([Fault(parsed.code, parsed.reason, option)])
    return parsed


def _value(text: str) -> Any:
    """Return a list, mapping, boolean or null as JSON says it, anything else as the text it is: amounts are texts."""
    try:
        return json.loads(text, parse_float=str, parse_constant=str)
    except ValueError:
        return text


def _laid_over(document: Mapping[str, Any], book: Mapping[str, Any]) -> list[Any]:
    """Return the plan's charges with those of the book in the place of all that price the same meters."""
    if document.get("currency") != book.get("currency"):
        reason = f"the price book is in {book.get('currency')}, the plan in {document.get('currency')}"
        raise InvalidInputError([Fault("other_currency", reason, "currency")])
    charges = book.get("charges", ())
    meters = {charge["meter"] for charge in charges if "meter" in charge}
    kept = [charge for charge in document.get("charges", ()) if charge.get("meter") not in meters]
    taken = {charge["id"] for charge in kept}
    return kept + [
        {**charge, "id": f"book-{charge['id']}"} if charge["id"] in taken else charge
        for charge in charges
        if "meter" in charge
    ]


def _minimum(amount: Decimal) -> dict[str, Any]:
    return {"id": WHAT_IF_MINIMUM, "name": "Minimum (what if)", "model": "minimum", "minimum_amount": plain(amount)}


def _discounted(charge: Mapping[str, Any], percent: Decimal) -> dict[str, Any]:
    """Return a charge with a discount on what is left after its own one; a minimum stays what it is."""
    if charge.get("model") in ("minimum", "commitment"):
        return dict(charge)
    own = charge.get("discount", {})
    before = Decimal(own.get("percent_off", 0)) if isinstance(own, Mapping) else Decimal(0)
    off = before + percent - before * percent / _HUNDRED
    return {**charge, "discount": {**(own if isinstance(own, Mapping) else {}), "percent_off": plain(off)}}


def _found(document: Mapping[str, Any] | None, plan_id: str, version: int) -> Mapping[str, Any]:
    if document is None:
        raise InvalidInputError([Fault("unknown_plan", f"no plan {plan_id!r} version {version}", "plan")])
    return document


def _kept(resolve: PlanOf) -> PlanOf:
    """Return the same, remembering answers: nearly all tenants hold one of few plans, and a version never changes."""
    known: dict[tuple[str, int, str], Plan] = {}

    def remembered(plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
        key = (plan_id, version, digest_of(dict(overrides)) if overrides else "")
        plan = known.get(key)
        if plan is None:
            if len(known) >= _PLANS_KEPT:
                known.clear()
            plan = known[key] = resolve(plan_id, version, overrides)
        return plan

    return remembered
