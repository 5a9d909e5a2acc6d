"""The desk of tenants: what is asked about them and changed of them from outside, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from core.clock import Clock
from core.errors import Fault, InvalidInputError, NotFoundError, UnavailableError
from core.period import format_instant
from runtime.postgres import Connection, Pool
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.create_tenant import create_tenant
from subscriptions.domain.tenant import Tenant
from subscriptions.update_tenant import update_tenant

_CHECKED = "SELECT vat_valid, vat_checked_at FROM tenants WHERE tenant_id = %s"
_NEEDED = ("tenant_id", "name", "email", "country", "currency")


class PostgresTenantDesk:
    """Tenants as JSON documents; implements `api.ports.TenantDesk`."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock

    async def find(self, tenant_id: str) -> dict[str, Any]:
        """Return a tenant's particulars; raises `NotFoundError`, `UnavailableError`."""
        async with self._open() as connection:
            return await _document(connection, tenant_id)

    async def create(self, particulars: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Create a tenant and tell whether it is new; the same again changes nothing.

        Raises `InvalidInputError` with every fault, `ConflictError` (`tenant_exists`), `UnavailableError`.
        """
        tenant = _read(particulars)
        async with self._open() as connection:
            store = PostgresSubscriptionStore(connection)
            is_new = await create_tenant(tenant, store=store, now=self._clock.now())
            return await _document(connection, tenant.tenant_id), is_new

    async def update(self, tenant_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change a tenant's particulars; raises `NotFoundError`, `InvalidInputError`, `UnavailableError`."""
        async with self._open() as connection:
            await update_tenant(tenant_id, changes, store=PostgresSubscriptionStore(connection))
            return await _document(connection, tenant_id)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection(timeout=3) as connection, connection.transaction():
                yield connection
        except (psycopg.OperationalError, PoolTimeout, OSError) as error:
            raise UnavailableError("tenants cannot be read now") from error


async def _document(connection: Connection, tenant_id: str) -> dict[str, Any]:
    tenant = await PostgresSubscriptionStore(connection).tenant(tenant_id)
    if tenant is None:
        raise NotFoundError(f"no tenant {tenant_id!r}")
    (row,) = await (await connection.execute(_CHECKED, (tenant_id,))).fetchall()
    checked_at = row["vat_checked_at"]
    return {
        **asdict(tenant),
        "vat_valid": row["vat_valid"],
        "vat_checked_at": format_instant(checked_at) if checked_at else None,
    }


def _read(particulars: Mapping[str, Any]) -> Tenant:
    known = {one.name: one for one in fields(Tenant)}
    faults = [Fault("missing_field", "this field is required", name) for name in _NEEDED if name not in particulars]
    for name, value in particulars.items():
        if name not in known:
            faults.append(Fault("unknown_field", f"a tenant has no {name[:40]!r}", name[:40]))
        elif type(value).__name__ != known[name].type:
            faults.append(Fault("invalid_type", f"expected {known[name].type}", name))
    if faults:
        raise InvalidInputError(faults)
    return Tenant(**particulars)
