"""Contracts as PostgreSQL keeps them. Owns how a row becomes a `Contract`, for every stage; `catalogues` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rating.domain.contract import Contract
from runtime.postgres import Connection

COLUMNS = "contract_id, version, tenant_id, plan_id, valid_from, valid_until, overrides, convention, net_days"
_SELECT = (
    f"SELECT {COLUMNS} FROM contracts WHERE withdrawn_at IS NULL"  # noqa: S608 - this file's own text
    " AND (%(tenants)s::text[] IS NULL OR tenant_id = ANY(%(tenants)s)) ORDER BY tenant_id, valid_from"
)


async def read_contracts(connection: Connection, tenant_ids: Sequence[str] | None = None) -> dict[str, list[Contract]]:
    """Return the contracts of these tenants (of all, if None) by tenant and start; tenants without one are absent."""
    asked = {"tenants": None if tenant_ids is None else list(tenant_ids)}
    contracts: dict[str, list[Contract]] = {}
    for row in await (await connection.execute(_SELECT.encode(), asked)).fetchall():
        contracts.setdefault(row["tenant_id"], []).append(contract_of(row))
    return contracts


def contract_of(row: Mapping[str, Any]) -> Contract:
    """Return a contract from the columns of its row."""
    return Contract(**{name: row[name] for name in COLUMNS.split(", ")})
