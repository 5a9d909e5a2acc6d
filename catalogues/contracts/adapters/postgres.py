"""Contracts in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import IntegrityError
from psycopg.types.json import Jsonb

from catalogues.contracts.ports import HeldTerms, StoredContract
from core.errors import ConflictError
from core.meters import Meter
from rating.adapters.stored_contracts import COLUMNS, contract_of
from rating.adapters.stored_timelines import read_timelines
from rating.domain.digest import digest_of
from rating.domain.timeline import AddOn, Held
from runtime.postgres import Connection
from runtime.stored_meters import read_meters

_SELECT = (
    f"SELECT {COLUMNS}, document, digest, c.created_at, shortened_at, withdrawn_at, time_zone"  # noqa: S608
    " FROM contracts AS c JOIN tenants USING (tenant_id)"
)


class ContractInUseError(ConflictError):
    """The contract was invoiced, or another one took its place meanwhile."""

    code = "contract_in_use"


class PostgresContractStore:
    """A `ContractStore` on the caller's connection and transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock_tenant(self, tenant_id: str) -> str | None:
        """Keep others from changing the tenant's contracts until the end; return its time zone, None if unknown."""
        rows = await self._rows("SELECT time_zone FROM tenants WHERE tenant_id = %s FOR NO KEY UPDATE", (tenant_id,))
        return rows[0]["time_zone"] if rows else None

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        return await read_meters(self._connection)

    async def newest_plan(self, plan_id: str) -> HeldTerms | None:
        """Return the newest version of a plan, None if unknown."""
        rows = await self._rows(
            "SELECT version, document FROM plan_versions WHERE plan_id = %s ORDER BY version DESC LIMIT 1", (plan_id,)
        )
        return HeldTerms(rows[0]["version"], rows[0]["document"], {}) if rows else None

    async def held_terms(self, tenant_id: str, plan_id: str) -> Sequence[HeldTerms]:
        """Return the versions of the plan that the tenant's subscriptions hold at any time, each once."""
        timelines = await read_timelines(self._connection, tenant_ids=[tenant_id])
        phases = [phase.held for timeline in timelines for phase in timeline.phases]
        named: list[Held | AddOn] = [*phases, *(one for held in phases for one in held.add_ons)]
        of_plan = [one for one in named if one.plan_id == plan_id]
        held = {(one.plan_version, digest_of(dict(one.overrides))): one for one in of_plan}
        documents = {
            row["version"]: row["document"]
            for row in await self._rows("SELECT version, document FROM plan_versions WHERE plan_id = %s", (plan_id,))
        }
        return [HeldTerms(one.plan_version, documents[one.plan_version], one.overrides) for one in held.values()]

    async def versions(self, contract_id: str) -> list[StoredContract]:
        """Return all versions of a contract in their order, withdrawn ones too."""
        return [
            _stored(row)
            for row in await self._rows(_SELECT + " WHERE contract_id = %s ORDER BY version", (contract_id,))
        ]

    async def contracts(self, tenant_id: str | None = None) -> list[StoredContract]:
        """Return the contracts of a tenant, or of all, by tenant, plan and start, without those that were withdrawn."""
        query = _SELECT + " WHERE withdrawn_at IS NULL AND (%s::text IS NULL OR tenant_id = %s)"
        rows = await self._rows(query + " ORDER BY tenant_id, plan_id, valid_from", (tenant_id, tenant_id))
        return [_stored(row) for row in rows]

    async def add(self, contract: StoredContract) -> None:
        """Store a version; its terms never change again."""
        one = contract.contract
        await self._write(
            "INSERT INTO contracts (contract_id, version, tenant_id, plan_id, valid_from, valid_until, document,"
            " digest, overrides, convention, net_days, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                one.contract_id,
                one.version,
                one.tenant_id,
                one.plan_id,
                one.valid_from,
                one.valid_until,
                Jsonb(dict(contract.document)),
                contract.digest,
                Jsonb(dict(one.overrides)),
                one.convention,
                one.net_days,
                contract.created_at,
            ),
        )

    async def shorten(self, contract_id: str, version: int, until: datetime, now: datetime) -> None:
        """Bring a version's end forward."""
        await self._write(
            "UPDATE contracts SET valid_until = %s, shortened_at = %s WHERE contract_id = %s AND version = %s",
            (until, now, contract_id, version),
        )

    async def withdraw(self, contract_id: str, version: int, now: datetime) -> None:
        """Take a version back that has not begun."""
        await self._write(
            "UPDATE contracts SET withdrawn_at = %s WHERE contract_id = %s AND version = %s",
            (now, contract_id, version),
        )

    async def _write(self, statement: str, arguments: tuple[Any, ...]) -> None:
        try:
            await self._connection.execute(statement.encode(), arguments)
        except IntegrityError as refused:
            raise ContractInUseError(refused.diag.message_primary) from refused

    async def _rows(self, query: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        # The texts are this file's own; only bound values vary.
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()


def _stored(row: dict[str, Any]) -> StoredContract:
    names = ("document", "digest", "created_at", "shortened_at", "withdrawn_at", "time_zone")
    return StoredContract(contract_of(row), *(row[name] for name in names))
