"""Puts changes of a subscription on record. Owns the order of checks that every verb shares, and that twice is once.

All happens in the caller's transaction and under the lock on the tenant's row, so what was checked still holds when it
is written: of two requests at once one waits and then sees what the other did.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError, must_hold
from core.period import format_instant
from rating.domain.digest import digest_of
from rating.domain.subscription import Request, Subscription
from rating.domain.timeline import Change, ChangeKind, Timeline, lay_contracts
from subscriptions.domain.limits import limit_phases
from subscriptions.domain.priced_meters import meters_priced_twice
from subscriptions.domain.proposals import Proposed, When, in_the_way, refusals, resolve, superseded
from subscriptions.domain.tenant import Tenant
from subscriptions.ports import SubscriptionStore
from subscriptions.read_plans import PlansHeld, read_plans

_KEY_LENGTH_MAX = 200


class KeyReusedError(ConflictError):
    """The idempotency key belongs to another request."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True)
class Asked:
    """By whom and how a change is asked for.

    Asking again with the same `key` is the same request; without a key every request is one of its own.
    `allow_backdated` lets it count long ago, `replace_scheduled` withdraws scheduled changes that are in its way.
    """

    recorded_by: str
    reason: str = ""
    key: str | None = None
    allow_backdated: bool = False
    replace_scheduled: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The subscription after a request, and the changes that it made; `is_new` is false when it was done before.

    A request that asks for what is so already makes no change.
    """

    subscription: Subscription
    changes: tuple[Change, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A subscription as it stands when a change is asked for."""

    subscription: Subscription
    tenant: Tenant
    timeline: Timeline
    now: datetime

    @property
    def ended_at(self) -> datetime | None:
        """When it ends, None while there is no end; the start if it was cancelled before that."""
        return self.timeline.ended_at if self.timeline.phases else self.subscription.started_at

    def at(self, when: When) -> datetime:
        """Return the instant that is meant by a moment."""
        return resolve(when, self.subscription, self.timeline, self.now)


Propose = Callable[[Standing], Awaitable[Sequence[Proposed]]]


async def record_changes(
    subscription_id: str,
    body: Mapping[str, Any],
    propose: Propose,
    *,
    asked: Asked,
    store: SubscriptionStore,
    clock: Clock,
) -> Outcome:
    """Put down what `propose` makes of the subscription as it stands; `body` is what was asked for, as plain JSON.

    Raises `NotFoundError`, `KeyReusedError`, and `InvalidInputError` with every reason (see `refusals`;
    `currency_mismatch`, `meter_priced_twice`).
    """
    check_request(asked)
    found = await store.subscription(subscription_id)
    if found is None:
        raise NotFoundError(f"no subscription {subscription_id!r}")
    tenant = await store.tenant(found.tenant_id, lock=True)
    # Only now, with the lock, it stands still.
    subscription = await store.subscription(subscription_id)
    if tenant is None or subscription is None:
        must_hold(False, f"{subscription_id} was there and is not")
        raise AssertionError
    now = clock.now()
    sha256 = digest_of(dict(body))
    if asked.key is not None and (before := subscription.asked_with(asked.key)):
        check_same(before[0][1].sha256, sha256, asked.key)
        return Outcome(subscription, tuple(change for change, _ in before), is_new=False)
    proposed = await propose(Standing(subscription, tenant, subscription.timeline(), now))
    if not proposed:
        return Outcome(subscription, (), is_new=False)
    withdrawn = superseded(subscription, proposed, now)
    if asked.replace_scheduled:
        scheduled = [one for one in in_the_way(subscription, proposed, now) if one.effective_at > now]
        withdrawn += [one for one in scheduled if one not in withdrawn]
    faults = refusals(subscription, proposed, withdrawn, now=now, allow_backdated=asked.allow_backdated)
    if faults:
        raise InvalidInputError(faults)
    key = asked.key or f"{now.timestamp():.6f}/{len(subscription.entries)}"
    entries = _entries(subscription, proposed, withdrawn, Request(asked.recorded_by, asked.reason, key, sha256), now)
    after = replace(subscription, entries=(*subscription.entries, *entries))
    await check_and_project(after, tenant, since=min(one.effective_at for one in proposed), store=store, adding=entries)
    return Outcome(after, tuple(change for change, _ in entries), is_new=True)


async def check_and_project(
    subscription: Subscription,
    tenant: Tenant,
    *,
    since: datetime,
    store: SubscriptionStore,
    adding: Sequence[tuple[Change, Request]] = (),
    is_new: bool = False,
) -> None:
    """Check a subscription beside the tenant's others, store what is new of it and what follows from it.

    Raises `InvalidInputError` (`currency_mismatch`, `meter_priced_twice`, plans that cannot be read), `NotFoundError`.
    """
    siblings = await store.subscriptions(tenant.tenant_id)
    others = [one for one in siblings if one.subscription_id != subscription.subscription_id]
    contracts = await store.contracts(tenant.tenant_id)
    own = subscription.timeline()
    timelines = [lay_contracts(one, contracts) for one in (own, *(other.timeline() for other in others))]
    plans = await read_plans(timelines, store)
    faults = _currency_faults(timelines[0], plans, tenant) + meters_priced_twice(timelines, plans, since)
    if faults:
        raise InvalidInputError(faults)
    if is_new:
        await store.add_subscription(subscription)
    await store.add_changes(subscription.subscription_id, adding)
    await store.put_phases(own)
    await store.put_limits(tenant.tenant_id, limit_phases(timelines, plans))


def check_request(asked: Asked) -> None:
    """Raise `InvalidInputError` (`invalid_text`) for texts that cannot be kept."""
    faults = [
        Fault("invalid_text", f"expected at most {_KEY_LENGTH_MAX} printable characters", path)
        for path, text in (("by", asked.recorded_by), ("reason", asked.reason), ("key", asked.key or ""))
        if len(text) > _KEY_LENGTH_MAX or not text.isprintable()
    ]
    if asked.key == "":
        faults.append(Fault("invalid_text", "expected an idempotency key, or none", "key"))
    if faults:
        raise InvalidInputError(faults)


def check_same(before: str, now: str, key: str) -> None:
    """Raise `KeyReusedError` unless both digests are of the same request."""
    if before != now:
        raise KeyReusedError(f"the key {key!r} belongs to a request for something else")


def _entries(
    subscription: Subscription,
    proposed: Sequence[Proposed],
    withdrawn: Sequence[Change],
    request: Request,
    now: datetime,
) -> list[tuple[Change, Request]]:
    last = max((change.sequence for change in subscription.changes), default=0)
    taken_back = [Proposed(ChangeKind.WITHDRAWN, one.effective_at, {"sequence": one.sequence}) for one in withdrawn]
    return [
        (Change(last + at, one.kind, one.effective_at, now, one.payload), request)
        for at, one in enumerate([*taken_back, *proposed], 1)
    ]


def _currency_faults(timeline: Timeline, plans: PlansHeld, tenant: Tenant) -> list[Fault]:
    held = {(phase.held.plan_id, phase.held.plan_key): phase for phase in timeline.phases}
    found = []
    for phase in held.values():
        currency = plans(phase.held.plan_id, phase.held.plan_version, phase.held.overrides).currency
        if currency != tenant.currency:
            reason = f"{phase.held.plan_id} is priced in {currency}, the tenant pays in {tenant.currency}"
            found.append(Fault("currency_mismatch", f"{reason} (from {format_instant(phase.start)} on)", "currency"))
    return found
