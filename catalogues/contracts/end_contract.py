"""Ends a contract."""

from __future__ import annotations

from datetime import UTC, datetime

from catalogues.contracts.add_contract import take_steps
from catalogues.contracts.ports import ContractStore
from catalogues.contracts.succession import Steps, cut_at
from core.errors import ConflictError, Fault, NotFoundError


class ContractBegunError(ConflictError):
    """What has begun cannot end in the past."""

    code = "contract_begun"


async def end_contract(contract_id: str, at: datetime | None, *, store: ContractStore, now: datetime) -> Steps:
    """End a contract at an instant, now if None; versions that begin then or later are withdrawn.

    Ending it again at or after its end does nothing. Runs in the caller's transaction. Raises `NotFoundError`, or
    `ContractBegunError` for an instant before now at which a version counted.
    """
    present = now.astimezone(UTC).replace(second=0, microsecond=0)
    instant = present if at is None else at.astimezone(UTC).replace(second=0, microsecond=0)
    versions = await store.versions(contract_id)
    if not versions:
        raise NotFoundError(f"no contract {contract_id[:80]!r}")
    await store.lock_tenant(versions[0].contract.tenant_id)
    standing = [one.contract for one in await store.versions(contract_id) if one.withdrawn_at is None]
    steps = cut_at(instant, standing, present)
    if isinstance(steps, Fault):
        raise ContractBegunError(steps.reason)
    await take_steps(steps, store=store, now=now)
    return steps
