"""Alerts, their rules and webhook endpoints from PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from core.clock import Clock
from core.errors import UnavailableError
from runtime.alert_rules import check_rule, delete_alert_rule, describe_rule, put_alert_rule, read_alert_rules
from runtime.postgres import Connection, Pool
from runtime.stored_alerts import DeliveryStatus, list_alerts, resend_alert
from runtime.webhooks_out import endpoints
from runtime.webhooks_out.address_guard import OutgoingPolicy


class PostgresAlerts:
    """Implements `api.ports.AlertDesk`."""

    def __init__(self, pool: Pool, policy: OutgoingPolicy, clock: Clock) -> None:
        self._pool, self._policy, self._clock = pool, policy, clock

    async def list_alerts(
        self,
        *,
        tenant: str | None,
        kind: str | None,
        status: DeliveryStatus | None,
        limit: int,
        starting_after: str | None,
    ) -> list[dict[str, Any]]:
        """Return up to `limit` alerts, newest first."""
        async with self._connection() as connection:
            return await list_alerts(
                connection, tenant=tenant, kind=kind, status=status, limit=limit, starting_after=starting_after
            )

    async def resend_alert(self, alert_id: str) -> int:
        """Let what was not delivered of an alert go out again."""
        async with self._connection() as connection:
            return await resend_alert(connection, alert_id, self._clock.now())

    async def list_rules(self) -> list[dict[str, Any]]:
        """Return all rules."""
        async with self._connection() as connection:
            return [describe_rule(rule) for rule in (await read_alert_rules(connection, ())).rules]

    async def put_rule(self, rule_id: str, document: dict[str, Any]) -> dict[str, Any]:
        """Write a rule in place of the one of its id."""
        rule = check_rule(rule_id, document)
        async with self._connection() as connection:
            await put_alert_rule(connection, rule, self._clock.now())
        return describe_rule(rule)

    async def delete_rule(self, rule_id: str) -> None:
        """Remove a rule."""
        async with self._connection() as connection:
            await delete_alert_rule(connection, rule_id)

    async def list_endpoints(self) -> list[dict[str, Any]]:
        """Return all webhook endpoints, without their secrets."""
        async with self._connection() as connection:
            return await endpoints.list_endpoints(connection)

    async def put_endpoint(self, endpoint_id: str, document: dict[str, Any]) -> dict[str, Any]:
        """Write an endpoint; the answer has its `secret` if it is new."""
        wish = endpoints.check_endpoint(endpoint_id, document, self._policy)
        async with self._connection() as connection:
            secret = await endpoints.put_endpoint(connection, wish, random_bytes=os.urandom, now=self._clock.now())
            found = {one["endpoint_id"]: one for one in await endpoints.list_endpoints(connection)}[endpoint_id]
        return found if secret is None else {**found, "secret": secret}

    async def rotate_secret(self, endpoint_id: str) -> dict[str, Any]:
        """Give an endpoint a new secret; for a day messages are signed with both."""
        async with self._connection() as connection:
            secret = await endpoints.rotate_secret(
                connection, endpoint_id, random_bytes=os.urandom, now=self._clock.now()
            )
            found = {one["endpoint_id"]: one for one in await endpoints.list_endpoints(connection)}[endpoint_id]
        return {**found, "secret": secret}

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection(timeout=5) as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout, OSError) as error:
            raise UnavailableError("alerts cannot be reached now") from error
