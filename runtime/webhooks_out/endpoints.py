"""Endpoints that take outgoing webhooks, in PostgreSQL. Owns their checks; a secret is seen once, by its maker."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from core.errors import Fault, InvalidInputError, NotFoundError
from core.ids import TENANT_PATTERN
from core.period import format_instant
from runtime.postgres import Connection
from runtime.webhooks_out.address_guard import OutgoingPolicy, check_url
from runtime.webhooks_out.signing import make_secret

# What is sent out so far; a stage that announces more adds its type here.
EVENT_TYPES = ("account.restored", "account.suspended", "alert.triggered", "payment.succeeded")
ENDPOINT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ROTATION = timedelta(hours=24)
_FIELDS = frozenset({"url", "tenant_id", "event_types", "enabled"})
_PUT = """
INSERT INTO webhook_endpoints
    (endpoint_id, tenant_id, url, event_types, enabled, secret, created_at, updated_at)
VALUES (%(endpoint_id)s, %(tenant_id)s, %(url)s, %(event_types)s, %(enabled)s, %(secret)s, %(now)s, %(now)s)
ON CONFLICT (endpoint_id) DO UPDATE SET
    tenant_id = excluded.tenant_id, url = excluded.url, event_types = excluded.event_types,
    enabled = excluded.enabled, disabled_reason = NULL, paused_until = NULL, updated_at = excluded.updated_at
RETURNING secret
"""
_ROTATE = """
UPDATE webhook_endpoints
SET previous_secret = secret, previous_secret_until = %(until)s, secret = %(secret)s, updated_at = %(now)s
WHERE endpoint_id = %(endpoint_id)s
"""
_LIST = """
SELECT endpoint_id, tenant_id, url, event_types, enabled, disabled_reason, previous_secret_until, created_at, updated_at
FROM webhook_endpoints ORDER BY endpoint_id
"""


@dataclass(frozen=True, slots=True)
class EndpointWish:
    """An endpoint as it should be. No `tenant_id`: events of every tenant; no `event_types`: of every type."""

    endpoint_id: str
    url: str
    tenant_id: str | None = None
    event_types: tuple[str, ...] = ()
    enabled: bool = True


def check_endpoint(endpoint_id: str, given: Mapping[str, Any], policy: OutgoingPolicy) -> EndpointWish:
    """Return the endpoint that a document asks for; raises `InvalidInputError` with every fault at once.

    Codes: `invalid_endpoint_id`, `unknown_field`, `invalid_type`, `invalid_tenant`, `unknown_event_type`, and those of
    `address_guard.check_url`.
    """
    unknown = sorted(set(given) - _FIELDS)
    faults = [Fault("unknown_field", f"there are {', '.join(sorted(_FIELDS))}", name[:80]) for name in unknown]
    if not ENDPOINT_ID.fullmatch(endpoint_id):
        faults.append(Fault("invalid_endpoint_id", "expected up to 64 of a-z, 0-9 . _ -", "endpoint_id"))
    url, tenant, types = given.get("url"), given.get("tenant_id"), given.get("event_types", [])
    if not isinstance(url, str):
        faults.append(Fault("invalid_type", "expected a text", "url"))
    else:
        try:
            check_url(url, policy)
        except InvalidInputError as refused:
            faults += refused.faults
    if tenant is not None and not (isinstance(tenant, str) and TENANT_PATTERN.fullmatch(tenant)):
        faults.append(Fault("invalid_tenant", "expected a tenant's id, or leave it out for all", "tenant_id"))
    if not isinstance(types, list) or not all(one in EVENT_TYPES for one in types):
        faults.append(Fault("unknown_event_type", f"expected a list of {', '.join(EVENT_TYPES)}", "event_types"))
    if not isinstance(given.get("enabled", True), bool):
        faults.append(Fault("invalid_type", "expected true or false", "enabled"))
    if faults:
        raise InvalidInputError(faults)
    assert isinstance(url, str)
    return EndpointWish(endpoint_id, url, tenant, tuple(sorted(set(types))), given.get("enabled", True))


async def put_endpoint(
    connection: Connection, wish: EndpointWish, *, random_bytes: Callable[[int], bytes], now: datetime
) -> str | None:
    """Write an endpoint; returns its secret if it is new, None if it was there. Raises `NotFoundError` (tenant)."""
    secret = make_secret(random_bytes(32))
    try:
        async with connection.transaction():
            row = await (
                await connection.execute(
                    _PUT,
                    {
                        "endpoint_id": wish.endpoint_id,
                        "tenant_id": wish.tenant_id,
                        "url": wish.url,
                        "event_types": list(wish.event_types),
                        "enabled": wish.enabled,
                        "secret": secret,
                        "now": now,
                    },
                )
            ).fetchone()
    except psycopg.errors.ForeignKeyViolation:
        raise NotFoundError(f"no tenant {wish.tenant_id!r}") from None
    assert row is not None
    return secret if row["secret"] == secret else None


async def rotate_secret(
    connection: Connection, endpoint_id: str, *, random_bytes: Callable[[int], bytes], now: datetime
) -> str:
    """Give an endpoint a new secret and return it; for a day messages are signed with the old one too."""
    secret = make_secret(random_bytes(32))
    cursor = await connection.execute(
        _ROTATE, {"endpoint_id": endpoint_id, "secret": secret, "until": now + ROTATION, "now": now}
    )
    if cursor.rowcount == 0:
        raise NotFoundError(f"no webhook endpoint {endpoint_id[:80]!r}")
    return secret


async def list_endpoints(connection: Connection) -> list[dict[str, Any]]:
    """Return all endpoints as documents, without their secrets."""
    rows = await (await connection.execute(_LIST)).fetchall()
    return [
        {
            "endpoint_id": row["endpoint_id"],
            "tenant_id": row["tenant_id"],
            "url": row["url"],
            "event_types": row["event_types"],
            "enabled": row["enabled"],
            "disabled_reason": row["disabled_reason"],
            "previous_secret_until": _written(row["previous_secret_until"]),
            "created_at": _written(row["created_at"]),
            "updated_at": _written(row["updated_at"]),
        }
        for row in rows
    ]


def _written(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)
