"""Subscriptions as PostgreSQL keeps them. Owns how rows become a `Subscription`, for every stage.

Reading is all there is here: only `subscriptions` writes, under the lock on the tenant's row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.calendar import Calendar
from core.period import Period
from rating.domain.cycle import Cycle, Interval, calendar_cycle
from rating.domain.proration import Convention
from rating.domain.subscription import Request, Subscription
from rating.domain.timeline import (
    AddOn,
    Change,
    ChangeKind,
    Held,
    State,
    SubscriptionStart,
    Timeline,
)
from runtime.postgres import Connection

_STARTS = (
    "SELECT subscription_id, tenant_id, plan_id, plan_version, overrides, quantity, add_ons, started_at, trial_ends_at,"
    " billing_interval, anchor, convention, s.recorded_at, s.recorded_by, request_key, request_sha256,"
    " time_zone, billing_anchor_day, ended_at"
    " FROM subscriptions AS s JOIN tenants USING (tenant_id)"
    " WHERE (%(tenants)s::text[] IS NULL OR tenant_id = ANY(%(tenants)s))"
    " AND (%(subscriptions)s::text[] IS NULL OR subscription_id = ANY(%(subscriptions)s))"
    " ORDER BY tenant_id, started_at, subscription_id"
)
_CHANGES = (
    "SELECT subscription_id, sequence, kind, effective_at, recorded_at, payload, recorded_by, reason, request_key,"
    " request_sha256 FROM subscription_changes WHERE subscription_id = ANY(%s) ORDER BY subscription_id, sequence"
)


async def read_subscriptions(
    connection: Connection,
    *,
    tenant_ids: Sequence[str] | None = None,
    subscription_ids: Sequence[str] | None = None,
) -> list[Subscription]:
    """Return subscriptions by tenant and start, all there are or those of some tenants or with some ids."""
    asked = {
        "tenants": None if tenant_ids is None else list(tenant_ids),
        "subscriptions": None if subscription_ids is None else list(subscription_ids),
    }
    starts = await (await connection.execute(_STARTS, asked)).fetchall()
    ids = [row["subscription_id"] for row in starts]
    entries: dict[str, list[tuple[Change, Request]]] = {one: [] for one in ids}
    for row in await (await connection.execute(_CHANGES, (ids,))).fetchall():
        entries[row["subscription_id"]].append((_change_of(row), _request_of(row)))
    found = []
    for row in starts:
        start, request, changes = start_of(row), _request_of({**row, "reason": ""}), entries[row["subscription_id"]]
        if row["ended_at"] is not None and not changes:
            # A row from before there were changes, with an end that no change tells of.
            changes.append((Change(0, ChangeKind.CANCELED, row["ended_at"], start.recorded_at), request))
        found.append(Subscription(start, request, tuple(changes)))
    return found


async def read_timelines(
    connection: Connection,
    *,
    tenant_ids: Sequence[str] | None = None,
    within: Period | None = None,
    known_at: datetime | None = None,
) -> list[Timeline]:
    """Return the timelines of tenants' subscriptions, by tenant and start, of those that hold anything `within`."""
    found = await read_subscriptions(connection, tenant_ids=tenant_ids)
    timelines = [one.timeline(known_at=known_at) for one in found]
    return [one for one in timelines if within is None or one.within(within)]


def start_of(row: Mapping[str, Any]) -> SubscriptionStart:
    """Return how a subscription began, from its row joined with its tenant's calendar."""
    interval = Interval(row["billing_interval"])
    if row["anchor"] is None:
        calendar = Calendar(row["time_zone"], row["billing_anchor_day"])
        cycle = calendar_cycle(interval, calendar, row["started_at"])
    else:
        cycle = Cycle(interval, row["anchor"], row["time_zone"])
    trial_ends_at = row["trial_ends_at"]
    held = Held(
        plan_id=row["plan_id"],
        plan_version=row["plan_version"],
        overrides=row["overrides"],
        quantity=row["quantity"],
        add_ons=tuple(add_ons_of(row["add_ons"])),
        state=State.ACTIVE if trial_ends_at is None else State.TRIAL,
    )
    return SubscriptionStart(
        subscription_id=row["subscription_id"],
        tenant_id=row["tenant_id"],
        cycle=cycle,
        convention=Convention(row["convention"]),
        started_at=row["started_at"],
        recorded_at=row["recorded_at"],
        held=held,
        trial_ends_at=trial_ends_at,
    )


def add_ons_of(documents: Iterable[Mapping[str, Any]]) -> Iterable[AddOn]:
    """Return add-ons from how columns keep them."""
    return (AddOn(one["plan_id"], one["plan_version"], Decimal(one["quantity"])) for one in documents)


def _change_of(row: Mapping[str, Any]) -> Change:
    return Change(row["sequence"], ChangeKind(row["kind"]), row["effective_at"], row["recorded_at"], row["payload"])


def _request_of(row: Mapping[str, Any]) -> Request:
    return Request(row["recorded_by"], row["reason"], row["request_key"] or "", row["request_sha256"] or "")
