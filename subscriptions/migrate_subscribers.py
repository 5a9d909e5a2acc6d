"""Moves the subscribers of a plan's older versions to a newer one; plan versions are kept until somebody does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import datetime

from core.clock import Clock
from core.errors import InvalidInputError, MeterbookError
from rating.domain.timeline import ChangeKind
from subscriptions.change_plan import find_plan
from subscriptions.domain.proposals import Moment, Proposed, When, when_text
from subscriptions.ports import SubscriptionStore
from subscriptions.record_changes import Asked, Standing, record_changes

OpenStore = Callable[[], AbstractAsyncContextManager[SubscriptionStore]]


@dataclass(frozen=True, slots=True)
class Migration:
    """One subscriber: from and to which version, from when on, and why not if it cannot be moved."""

    subscription_id: str
    tenant_id: str
    from_version: int
    to_version: int
    effective_at: datetime
    refusal: str | None = None


async def migrate_subscribers(
    plan_id: str,
    *,
    asked: Asked,
    open_store: OpenStore,
    clock: Clock,
    when: When = Moment.PERIOD_END,
    version: int | None = None,
    tenants: Collection[str] | None = None,
    dry_run: bool = False,
) -> AsyncIterator[Migration]:
    """Move everyone who holds another version of the plan at that moment, and yield each; overrides are kept.

    Each in a transaction of its own, so one that cannot be moved (a change is scheduled, overrides do not fit the new
    version) holds nobody up; running it again goes on with the rest. `tenants` narrows it. With `dry_run` nothing is
    written, and refusals are those that would come. Raises `NotFoundError` for an unknown plan or version.
    """
    async with open_store() as store:
        target = (await find_plan(plan_id, version, store, clock)).version
        subscribers = await store.subscribers(plan_id, clock.now())
    for subscription_id in subscribers:
        found = await _migrate(subscription_id, plan_id, target, asked, open_store, clock, when, tenants, dry_run)
        if found is not None:
            yield found


class _DryRunError(Exception):
    """Ends a transaction that was only tried."""


async def _migrate(
    subscription_id: str,
    plan_id: str,
    target: int,
    asked: Asked,
    open_store: OpenStore,
    clock: Clock,
    when: When,
    tenants: Collection[str] | None,
    dry_run: bool,
) -> Migration | None:
    moved: list[Migration] = []

    async def propose(standing: Standing) -> Sequence[Proposed]:
        at = standing.at(when)
        held = standing.timeline.at(at)
        if held is None or held.plan_id != plan_id or held.plan_version == target:
            return ()
        if tenants is not None and standing.tenant.tenant_id not in tenants:
            return ()
        moved.append(Migration(subscription_id, standing.tenant.tenant_id, held.plan_version, target, at))
        payload = {"plan_id": plan_id, "plan_version": target, "overrides": dict(held.overrides)}
        return (Proposed(ChangeKind.MIGRATED, at, payload),)

    body = {"verb": "migrate", "plan": plan_id, "version": target, "when": when_text(when)}
    try:
        with suppress(_DryRunError):
            async with open_store() as store:
                await record_changes(subscription_id, body, propose, asked=asked, store=store, clock=clock)
                if dry_run:
                    raise _DryRunError
    except MeterbookError as refused:
        if not moved:
            raise
        return _refused(moved[0], refused)
    return moved[0] if moved else None


def _refused(migration: Migration, refused: MeterbookError) -> Migration:
    faults = [str(fault) for fault in refused.faults] if isinstance(refused, InvalidInputError) else [str(refused)]
    return Migration(
        migration.subscription_id,
        migration.tenant_id,
        migration.from_version,
        migration.to_version,
        migration.effective_at,
        "; ".join(faults),
    )
