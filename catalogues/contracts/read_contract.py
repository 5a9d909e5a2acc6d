"""Reads a contract's document and checks it against the plan. Owns what a contract may say.

The overrides are in the plan's own form and are judged by the plan's own reader, so a contract can price whatever a
catalogue can; faults carry the path within the contract.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalogues.contracts.ports import HeldTerms
from catalogues.read_date import read_instant
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN
from core.meters import Meter
from core.money import MINOR_UNITS
from rating.domain.fields import Fields
from rating.domain.override_plan import merge_overrides, override_plan
from rating.domain.plan import read_plan
from rating.domain.price import plain
from rating.domain.proration import Convention

NET_DAYS_MAX = 365
MINIMUM_ID = "contract_minimum"
_CHARGE = re.compile(r"charges\[(\d+)\](.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ContractTerms:
    """A contract's document, read: the overrides still name the minimum apart, because its charge is the plan's."""

    contract_id: str
    tenant_id: str
    plan_id: str
    currency: str
    valid_from: datetime
    valid_until: datetime | None
    overrides: Mapping[str, Any]
    minimum_amount: str | None
    convention: str | None
    net_days: int | None


def tenant_of(document: object) -> str | None:
    """Return the tenant a document names, None if it names none that could be one."""
    tenant_id = document.get("tenant") if isinstance(document, dict) else None
    return tenant_id if isinstance(tenant_id, str) and TENANT_PATTERN.fullmatch(tenant_id) else None


def read_terms(document: object, time_zone: str, faults: list[Fault]) -> ContractTerms | None:
    """Read a contract, noting every fault; None if there was one. Dates alone begin in the tenant's `time_zone`."""
    found_before = len(faults)
    fields = Fields(document, "", faults)
    contract_id, tenant_id = fields.name("contract"), fields.text("tenant", max_length=64)
    if tenant_id and not TENANT_PATTERN.fullmatch(tenant_id):
        fields.fault("tenant", "invalid_tenant_id", f"no tenant can be called {tenant_id!r}")
    plan_id, currency = fields.name("plan"), fields.choice("currency", MINOR_UNITS, "unknown_currency")
    valid_from, valid_until = _read_validity(fields, time_zone)
    minimum = plain(fields.amount("minimum_amount")) if fields.has("minimum_amount") else None
    conventions = [one.value for one in Convention]
    convention = fields.choice("proration", conventions, "invalid_choice") if fields.has("proration") else None
    net_days = _read_net_days(fields)
    overrides: dict[str, Any] = {}
    if fields.has("name"):
        overrides["name"] = fields.text("name")
    if fields.has("limits"):
        overrides["limits"] = fields.mapping("limits")
    if fields.has("charges"):
        overrides["charges"] = _read_charges(fields)
    fields.finish()
    if len(faults) > found_before or valid_from is None:
        return None
    return ContractTerms(
        contract_id,
        tenant_id,
        plan_id,
        currency,
        valid_from,
        valid_until,
        overrides,
        minimum,
        convention,
        net_days,
    )


def overrides_for(terms: ContractTerms, newest: HeldTerms) -> dict[str, Any]:
    """Return the overrides with the minimum laid on the plan's own, or added where the plan has none.

    Raises `InvalidInputError` (`ambiguous_minimum`, `contradiction`).
    """
    overrides = dict(terms.overrides)
    if terms.minimum_amount is None:
        return overrides
    charges: list[dict[str, Any]] = list(overrides.get("charges", []))
    minimums = [charge["id"] for charge in newest.document["charges"] if charge.get("model") == "minimum"]
    if len(minimums) > 1:
        reason = f"the plan has several minimums ({', '.join(minimums)}): override the one that is meant by its id"
        raise InvalidInputError([Fault("ambiguous_minimum", reason, "minimum_amount")])
    minimum_id = minimums[0] if minimums else MINIMUM_ID
    if any(charge["id"] == minimum_id for charge in charges):
        reason = f"the charge {minimum_id!r} is overridden as well: say it in one place"
        raise InvalidInputError([Fault("contradiction", reason, "minimum_amount")])
    added = {"id": minimum_id, "minimum_amount": terms.minimum_amount}
    if not minimums:
        added |= {"name": "Top-up to the contract's minimum", "model": "minimum"}
    return {**overrides, "charges": [*charges, added]}


def check_overrides(
    overrides: Mapping[str, Any], currency: str, held: Iterable[HeldTerms], meters: Mapping[str, Meter]
) -> list[Fault]:
    """Return every fault of the plan that the overrides make, for each version of it the tenant holds; each once."""
    faults: dict[tuple[str, str, str], Fault] = {}
    own = [charge["id"] for charge in overrides.get("charges", [])]
    for terms in held:
        found: list[Fault] = []
        if terms.document["currency"] != currency:
            reason = f"the plan is priced in {terms.document['currency']}"
            found.append(Fault("currency_mismatch", reason, "currency"))
        found += _dropped_in_vain(terms.document, overrides)
        document = override_plan(terms.document, merge_overrides(terms.overrides, overrides))
        strangers = _unknown_charges(document, overrides, terms)
        document["charges"] = [charge for charge in document["charges"] if charge["id"] not in strangers]
        judged: list[Fault] = []
        read_plan("plan", document, meters, "", judged)
        found += [*strangers.values(), *(_placed(fault, document, own, terms.plan_version) for fault in judged)]
        for fault in found:
            faults.setdefault((fault.code, fault.path, fault.reason), fault)
    return list(faults.values())


def _dropped_in_vain(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[Fault]:
    """Return a fault for every null that drops nothing: a misspelt field would otherwise pass unseen."""
    charges = {charge["id"]: charge for charge in document["charges"]}
    faults = []
    for index, charge in enumerate(overrides.get("charges", [])):
        for name, value in charge.items():
            if value is None and name not in charges.get(charge["id"], {}):
                reason = "null drops a field of the plan's charge, which has none of this name"
                faults.append(Fault("unknown_field", reason, f"charges[{index}].{name}"))
    for meter_id, value in overrides.get("limits", {}).items():
        if value is None and meter_id not in document.get("limits", {}):
            reason = "null drops a limit of the plan, which has none for this meter"
            faults.append(Fault("unknown_field", reason, f"limits.{meter_id}"))
    return faults


def _unknown_charges(document: Mapping[str, Any], overrides: Mapping[str, Any], terms: HeldTerms) -> dict[str, Fault]:
    """Return a fault for each charge that is neither the plan's nor whole by itself: most often a slip in its id."""
    whole = {charge["id"] for charge in document["charges"] if "model" in charge}
    known = ", ".join(charge["id"] for charge in terms.document["charges"])
    reason = f"plan version {terms.plan_version} has no such charge, and one of its own needs a model; it has: {known}"
    return {
        charge["id"]: Fault("unknown_charge", reason, f"charges[{index}].id")
        for index, charge in enumerate(overrides.get("charges", []))
        if charge["id"] not in whole and charge.get("model", "") is not None
    }


def _placed(fault: Fault, document: Mapping[str, Any], own: list[str], version: int) -> Fault:
    """Return the fault at its place in the contract; one of the plan alone says which version."""
    found = _CHARGE.fullmatch(fault.path)
    if found is None:
        return fault
    charge_id = document["charges"][int(found[1])]["id"]
    if charge_id in own:
        return Fault(fault.code, fault.reason, f"charges[{own.index(charge_id)}]{found[2]}")
    return Fault(fault.code, f"{fault.reason} (charge {charge_id!r} of plan version {version})", "charges")


def _read_validity(fields: Fields, time_zone: str) -> tuple[datetime | None, datetime | None]:
    if not fields.has("valid_from"):
        fields.fault("valid_from", "missing_field", "this field is required")
    valid_from = read_instant(fields, "valid_from", time_zone)
    valid_until = read_instant(fields, "valid_until", time_zone)
    if valid_from is not None and valid_until is not None and valid_until <= valid_from:
        fields.fault("valid_until", "invalid_period", "it must be later than valid_from; the day it names is not in it")
    return valid_from, valid_until


def _read_net_days(fields: Fields) -> int | None:
    if not fields.has("net_days"):
        return None
    days = fields.raw("net_days")
    if type(days) is not int or not 0 <= days <= NET_DAYS_MAX:
        fields.fault(
            "net_days", "invalid_number", f"expected whole days from 0 to {NET_DAYS_MAX}, got {str(days)[:60]}"
        )
        return None
    return days


def _read_charges(fields: Fields) -> list[dict[str, Any]]:
    charges: list[dict[str, Any]] = []
    for index, charge in enumerate(fields.items("charges")):
        one = Fields(charge, fields.at(f"charges[{index}]"), fields.faults)
        charge_id = one.name("id")
        if charge_id and any(charge_id == other["id"] for other in charges):
            one.fault("id", "duplicate_id", f"the charge {charge_id!r} is overridden twice")
        if charge_id and isinstance(charge, dict):
            charges.append({str(name): value for name, value in charge.items()})
    return charges
