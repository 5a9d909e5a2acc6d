"""`meterbook contract` put together: the catalogues keep contracts, the subscriptions what follows from them."""

from __future__ import annotations

from datetime import datetime

import typer

from catalogues.contracts.commands import create_contract_app
from runtime.postgres import Connection
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.follow_contracts import follow_contracts


async def follow(connection: Connection, tenant_id: str, since: datetime) -> None:
    """Let a tenant's limits follow its contracts, in the transaction that changed them."""
    await follow_contracts(tenant_id, since, store=PostgresSubscriptionStore(connection))


def create_app() -> typer.Typer:
    """Return the command with what follows from a contract."""
    return create_contract_app(follow)
