"""Adds contracts, and amends them by their next version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from catalogues.contracts.ports import ContractStore, StoredContract
from catalogues.contracts.read_contract import check_overrides, overrides_for, read_terms, tenant_of
from catalogues.contracts.succession import Steps, follow
from core.errors import Fault, InvalidInputError
from rating.domain.contract import Contract
from rating.domain.digest import digest_of


@dataclass(frozen=True, slots=True)
class Added:
    """What came of a contract: a first version, an amendment with what it did to the one before, or nothing new.

    `plan` is the newest document of its plan, over which it lies.
    """

    stored: StoredContract
    outcome: Literal["added", "amended", "as_before"]
    steps: Steps
    plan: Mapping[str, Any]


async def add_contract(document: object, *, store: ContractStore, now: datetime) -> Added:
    """Store a contract, or the next version of the one that has its id; the same document again changes nothing.

    An amendment begins later than the version before and after now, and ends that version there; one that has not
    begun may be replaced. Runs in the caller's transaction. Raises `InvalidInputError` with every fault and its path
    (`unknown_tenant`, `unknown_plan`, `contract_overlap`, `amends_the_past`, and all a plan's own reader refuses).
    """
    faults: list[Fault] = []
    tenant_id = tenant_of(document)
    time_zone = await store.lock_tenant(tenant_id) if tenant_id is not None else None
    terms = read_terms(document, time_zone or "UTC", faults)
    if tenant_id is not None and time_zone is None:
        faults.append(Fault("unknown_tenant", f"no tenant is called {tenant_id!r}", "tenant"))
    if terms is None or time_zone is None or not isinstance(document, dict):
        raise InvalidInputError(faults)
    versions = await store.versions(terms.contract_id)
    newest = await store.newest_plan(terms.plan_id)
    if newest is None:
        raise InvalidInputError([Fault("unknown_plan", f"no plan is called {terms.plan_id!r}", "plan")])
    digest = _digest(document)
    if versions and versions[-1].digest == digest and versions[-1].withdrawn_at is None:
        return Added(versions[-1], "as_before", Steps(), newest.document)
    overrides = overrides_for(terms, newest)
    held = await store.held_terms(terms.tenant_id, terms.plan_id)
    faults += check_overrides(overrides, terms.currency, [newest, *held], await store.meters())
    contract = Contract(
        terms.contract_id,
        len(versions) + 1,
        terms.tenant_id,
        terms.plan_id,
        terms.valid_from,
        terms.valid_until,
        overrides,
        terms.convention,
        terms.net_days,
    )
    steps = follow(contract, versions, await store.contracts(terms.tenant_id), now)
    if isinstance(steps, Fault):
        faults.append(steps)
    if faults or isinstance(steps, Fault):
        raise InvalidInputError(faults)
    await take_steps(steps, store=store, now=now)
    stored = StoredContract(contract, _frozen(document), digest, now, time_zone=time_zone)
    await store.add(stored)
    return Added(stored, "amended" if versions else "added", steps, newest.document)


async def take_steps(steps: Steps, *, store: ContractStore, now: datetime) -> None:
    """Bring ends forward and withdraw what has not begun."""
    for one, until in steps.shorten:
        await store.shorten(one.contract_id, one.version, until, now)
    for one in steps.withdraw:
        await store.withdraw(one.contract_id, one.version, now)


def _digest(document: dict[Any, Any]) -> str:
    try:
        return digest_of(document)
    except ValueError as error:
        # A number beyond 2^53, or text that is no text: what every program reads alike only can be agreed on.
        raise InvalidInputError([Fault("invalid_document", str(error))]) from None


def _frozen(document: dict[Any, Any]) -> Mapping[str, Any]:
    return {str(name): value for name, value in document.items()}
