"""Tenants, subscriptions and quota limits in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from core.meters import Meter
from rating.adapters.stored_timelines import read_subscriptions
from rating.domain.contract import Contract
from rating.domain.price import plain
from rating.domain.subscription import Request, Subscription
from rating.domain.timeline import AddOn, Change, Timeline
from runtime.postgres import Connection
from runtime.stored_meters import read_meters
from subscriptions.domain.limits import LimitPhase
from subscriptions.domain.tenant import Tenant
from subscriptions.ports import PlanVersion

_TENANTS = (
    "SELECT tenant_id, name, email, country, currency, address, time_zone, billing_anchor_day, state, postal_code,"
    " is_business, vat_number, tax_exempt, tax_exempt_code, language FROM tenants"
)
_PUT_TENANT = (
    "UPDATE tenants SET name = %(name)s, email = %(email)s, country = %(country)s, address = %(address)s,"
    " state = %(state)s, postal_code = %(postal_code)s, is_business = %(is_business)s, vat_number = %(vat_number)s,"
    " tax_exempt = %(tax_exempt)s, tax_exempt_code = %(tax_exempt_code)s, language = %(language)s,"
    " vat_valid = CASE WHEN %(vat_unchecked)s THEN NULL ELSE vat_valid END,"
    " vat_checked_at = CASE WHEN %(vat_unchecked)s THEN NULL ELSE vat_checked_at END WHERE tenant_id = %(tenant_id)s"
)
_PLANS = "SELECT plan_id, version, document FROM plan_versions WHERE plan_id = %s"
_CONTRACTS = (
    "SELECT contract_id, version, tenant_id, plan_id, valid_from, valid_until, overrides, convention, net_days"
    " FROM contracts WHERE tenant_id = %s AND withdrawn_at IS NULL ORDER BY valid_from"
)
_SUBSCRIBERS = (
    "SELECT DISTINCT subscription_id FROM subscription_phases WHERE plan_id = %s AND (ends_at IS NULL OR ends_at > %s)"
    " UNION SELECT subscription_id FROM subscriptions AS s WHERE plan_id = %s AND (ended_at IS NULL OR ended_at > %s)"
    " AND NOT EXISTS (SELECT FROM subscription_phases AS p WHERE p.subscription_id = s.subscription_id) ORDER BY 1"
)
_ADD_SUBSCRIPTION = (
    "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, overrides, started_at, quantity,"
    " add_ons, trial_ends_at, billing_interval, anchor, convention, recorded_at, recorded_by, request_key,"
    " request_sha256) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_ADD_CHANGE = (
    "INSERT INTO subscription_changes (subscription_id, sequence, kind, effective_at, recorded_at, payload,"
    " recorded_by, reason, request_key, request_sha256) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_ADD_PHASE = (
    "INSERT INTO subscription_phases (subscription_id, starts_at, ends_at, plan_id, plan_version, quantity, add_ons,"
    " state) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
_ADD_LIMIT = (
    "INSERT INTO quota_limit_phases (tenant_id, meter_id, limit_quantity, hard, unit, effective_from, effective_until)"
    " VALUES (%s, %s, %s, %s, %s, coalesce(%s, '-infinity'::timestamptz), coalesce(%s, 'infinity'::timestamptz))"
)


class PostgresSubscriptionStore:
    """A `SubscriptionStore` on the caller's connection and transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tenant(self, tenant_id: str, *, lock: bool = False) -> Tenant | None:
        """Return a tenant, None if unknown; `lock` keeps others from changing its subscriptions meanwhile."""
        query = _TENANTS + " WHERE tenant_id = %s" + (" FOR NO KEY UPDATE" if lock else "")
        rows = await self._rows(query, (tenant_id,))
        return Tenant(**rows[0]) if rows else None

    async def add_tenant(self, tenant: Tenant, now: datetime) -> bool:
        """Store a tenant unless its id is taken; tells whether it was new."""
        added = await self._connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, address, time_zone, billing_anchor_day,"
            " state, postal_code, is_business, vat_number, tax_exempt, tax_exempt_code, language, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (tenant_id) DO NOTHING",
            (*astuple(tenant), now),
        )
        return added.rowcount == 1

    async def put_tenant(self, tenant: Tenant, *, vat_unchecked: bool) -> None:
        """Replace a tenant's particulars; `vat_unchecked` forgets what VIES said of its number."""
        await self._connection.execute(_PUT_TENANT, {**asdict(tenant), "vat_unchecked": vat_unchecked})

    async def newest_plan(self, plan_id: str, now: datetime) -> PlanVersion | None:
        """Return the newest version of a plan that is sold, None if there is none."""
        rows = await self._rows(_PLANS + " AND effective_from <= %s ORDER BY version DESC LIMIT 1", (plan_id, now))
        return PlanVersion(**rows[0]) if rows else None

    async def plan(self, plan_id: str, version: int) -> PlanVersion | None:
        """Return a version of a plan, None if unknown."""
        rows = await self._rows(_PLANS + " AND version = %s", (plan_id, version))
        return PlanVersion(**rows[0]) if rows else None

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        return await read_meters(self._connection)

    async def contracts(self, tenant_id: str) -> list[Contract]:
        """Return the tenant's contracts of all times."""
        return [Contract(**row) for row in await self._rows(_CONTRACTS, (tenant_id,))]

    async def subscription(self, subscription_id: str) -> Subscription | None:
        """Return a subscription with all its changes, None if unknown."""
        found = await read_subscriptions(self._connection, subscription_ids=[subscription_id])
        return found[0] if found else None

    async def subscriptions(self, tenant_id: str) -> list[Subscription]:
        """Return all of a tenant's subscriptions, ended ones too, by start."""
        return await read_subscriptions(self._connection, tenant_ids=[tenant_id])

    async def subscribers(self, plan_id: str, now: datetime) -> list[str]:
        """Return the ids of subscriptions that hold a plan as their own now or later, in order."""
        rows = await self._rows(_SUBSCRIBERS, (plan_id, now, plan_id, now))
        return [row["subscription_id"] for row in rows]

    async def add_subscription(self, subscription: Subscription) -> None:
        """Store how a subscription begins; its entries are added by `add_changes`."""
        start, request = subscription.start, subscription.request
        await self._connection.execute(
            _ADD_SUBSCRIPTION,
            (
                start.subscription_id,
                start.tenant_id,
                start.held.plan_id,
                start.held.plan_version,
                Jsonb(dict(start.held.overrides)),
                start.started_at,
                start.held.quantity,
                Jsonb(_add_ons(start.held.add_ons)),
                start.trial_ends_at,
                start.cycle.interval.value,
                start.cycle.anchor,
                start.convention.value,
                start.recorded_at,
                request.recorded_by,
                request.key or None,
                request.sha256 or None,
            ),
        )

    async def add_changes(self, subscription_id: str, entries: Sequence[tuple[Change, Request]]) -> None:
        """Store changes; what is stored already never changes."""
        for change, request in entries:
            await self._connection.execute(
                _ADD_CHANGE,
                (
                    subscription_id,
                    change.sequence,
                    change.kind.value,
                    change.effective_at,
                    change.recorded_at,
                    Jsonb(dict(change.payload)),
                    request.recorded_by,
                    request.reason,
                    request.key,
                    request.sha256,
                ),
            )

    async def put_phases(self, timeline: Timeline) -> None:
        """Make these the subscription's phases as known now, for those who cannot replay."""
        subscription_id = timeline.subscription_id
        await self._connection.execute("DELETE FROM subscription_phases WHERE subscription_id = %s", (subscription_id,))
        for phase in timeline.phases:
            held = phase.held
            await self._connection.execute(
                _ADD_PHASE,
                (
                    subscription_id,
                    phase.start,
                    phase.end,
                    held.plan_id,
                    held.plan_version,
                    held.quantity,
                    Jsonb(_add_ons(held.add_ons)),
                    held.state.value,
                ),
            )
        await self._connection.execute(
            "UPDATE subscriptions SET ended_at = CASE WHEN %s THEN %s::timestamptz ELSE started_at END"
            " WHERE subscription_id = %s",
            (bool(timeline.phases), timeline.ended_at, subscription_id),
        )

    async def put_limits(self, tenant_id: str, limits: Sequence[LimitPhase]) -> None:
        """Make these the tenant's quota limits of all times."""
        await self._connection.execute("DELETE FROM quota_limit_phases WHERE tenant_id = %s", (tenant_id,))
        for one in limits:
            limit = one.limit
            await self._connection.execute(
                _ADD_LIMIT, (tenant_id, limit.meter_id, limit.limit, limit.hard, limit.unit, one.start, one.end)
            )

    async def tenants(self) -> list[tuple[Tenant, list[Subscription]]]:
        """Return all tenants with their subscriptions, by id."""
        held: dict[str, list[Subscription]] = {}
        for one in await read_subscriptions(self._connection):
            held.setdefault(one.tenant_id, []).append(one)
        rows = await self._rows(_TENANTS + " ORDER BY tenant_id", ())
        return [(Tenant(**row), held.get(row["tenant_id"], [])) for row in rows]

    async def _rows(self, query: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        # The texts are this file's own; only bound values vary.
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()


def _add_ons(add_ons: Sequence[AddOn]) -> list[dict[str, Any]]:
    return [
        {"plan_id": one.plan_id, "plan_version": one.plan_version, "quantity": plain(one.quantity)} for one in add_ons
    ]
