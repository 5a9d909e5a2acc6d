"""Alert rules as PostgreSQL keeps them. Owns the checks of a rule that comes from outside, its rows, a cache of all.

Every stage that follows rules reads them here: the quota agent percent and units, alerts money and anomalies.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from core.alert_rules import CHANNELS, RULE_KINDS, AlertRule, AlertRules
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from core.money import MINOR_UNITS
from runtime.postgres import Connection, Pool

_COLUMNS = "rule_id, kind, value, tenant_id, meter_id, charge_id, currency, channels, enabled"
_SELECT = f"SELECT {_COLUMNS} FROM alert_rules ORDER BY rule_id"  # noqa: S608 - a constant
_PUT = """
INSERT INTO alert_rules
    (rule_id, kind, value, tenant_id, meter_id, charge_id, currency, channels, enabled, created_at, updated_at)
VALUES (%(rule_id)s, %(kind)s, %(value)s, %(tenant_id)s, %(meter_id)s, %(charge_id)s, %(currency)s, %(channels)s,
        %(enabled)s, %(now)s, %(now)s)
ON CONFLICT (rule_id) DO UPDATE SET
    kind = excluded.kind, value = excluded.value, tenant_id = excluded.tenant_id, meter_id = excluded.meter_id,
    charge_id = excluded.charge_id, currency = excluded.currency, channels = excluded.channels,
    enabled = excluded.enabled, updated_at = excluded.updated_at
"""
RULE_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VALUE = re.compile(r"\d{1,26}(\.\d{1,12})?", re.ASCII)
_FIELDS = frozenset({"kind", "value", "tenant_id", "meter", "charge", "currency", "channels", "enabled"})
_TEXTS = ("tenant_id", "meter", "charge", "currency")
log = structlog.get_logger()


def check_rule(rule_id: str, given: Mapping[str, Any]) -> AlertRule:
    """Return the rule that a document describes; raises `InvalidInputError` with every fault at once.

    Codes: `invalid_rule_id`, `unknown_field`, `invalid_type`, `unknown_kind`, `invalid_value`, `unknown_currency`,
    `unknown_channel`, `invalid_scope`.
    """
    faults = [
        Fault("unknown_field", f"there are {', '.join(sorted(_FIELDS))}", name[:80])
        for name in sorted(set(given) - _FIELDS)
    ]
    if not RULE_ID.fullmatch(rule_id):
        faults.append(Fault("invalid_rule_id", "expected up to 64 of a-z, 0-9 . _ -", "rule_id"))
    kind = given.get("kind")
    if kind not in RULE_KINDS:
        faults.append(Fault("unknown_kind", f"expected one of {', '.join(RULE_KINDS)}", "kind"))
    for name in _TEXTS:
        if not isinstance(given.get(name), str | None) or given.get(name) == "":
            faults.append(Fault("invalid_type", "expected a text, or leave it out", name))
    if not isinstance(given.get("enabled", True), bool):
        faults.append(Fault("invalid_type", "expected true or false", "enabled"))
    channels = given.get("channels", [])
    if not isinstance(channels, list) or not all(channel in CHANNELS for channel in channels):
        faults.append(Fault("unknown_channel", f"expected a list of {', '.join(CHANNELS)}", "channels"))
    if not faults:
        faults = _check_meaning(given)
    if faults:
        raise InvalidInputError(faults)
    return AlertRule(
        rule_id=rule_id,
        kind=given["kind"],
        value=_read_value(given.get("value")),
        tenant_id=given.get("tenant_id"),
        meter_id=given.get("meter"),
        charge_id=given.get("charge"),
        currency=given.get("currency"),
        channels=tuple(sorted(set(channels))),
        enabled=given.get("enabled", True),
    )


def describe_rule(rule: AlertRule) -> dict[str, Any]:
    """Return the document of a rule, as `check_rule` reads it, with its id."""
    return {
        "rule_id": rule.rule_id,
        "kind": rule.kind,
        "value": None if rule.value is None else _plain(rule.value),
        "tenant_id": rule.tenant_id,
        "meter": rule.meter_id,
        "charge": rule.charge_id,
        "currency": rule.currency,
        "channels": list(rule.channels),
        "enabled": rule.enabled,
    }


async def read_alert_rules(connection: Connection, default_percentages: Iterable[int]) -> AlertRules:
    """Return all rules; `default_percentages` hold where no rule of percent does."""
    rows = await (await connection.execute(_SELECT)).fetchall()
    return AlertRules.of((_rule_of(row) for row in rows), default_percentages)


async def put_alert_rule(connection: Connection, rule: AlertRule, now: datetime) -> None:
    """Write a rule, in place of the one of its id.

    Raises `NotFoundError` for an unknown tenant or meter, `ConflictError` if another rule says the same.
    """
    try:
        async with connection.transaction():
            await connection.execute(
                _PUT,
                {
                    "rule_id": rule.rule_id,
                    "kind": rule.kind,
                    "value": rule.value,
                    "tenant_id": rule.tenant_id,
                    "meter_id": rule.meter_id,
                    "charge_id": rule.charge_id,
                    "currency": rule.currency,
                    "channels": list(rule.channels),
                    "enabled": rule.enabled,
                    "now": now,
                },
            )
    except psycopg.errors.ForeignKeyViolation as error:
        what = "tenant" if "tenant" in str(error.diag.constraint_name) else "meter"
        raise NotFoundError(f"no {what} {rule.tenant_id if what == 'tenant' else rule.meter_id!r}") from None
    except psycopg.errors.UniqueViolation:
        raise ConflictError("another rule has the same threshold for the same tenant and meter") from None


async def delete_alert_rule(connection: Connection, rule_id: str) -> None:
    """Remove a rule; raises `NotFoundError`."""
    if (await connection.execute("DELETE FROM alert_rules WHERE rule_id = %s", (rule_id,))).rowcount == 0:
        raise NotFoundError(f"no alert rule {rule_id[:80]!r}")


class AlertRulesCache:
    """All rules, read again when older than `refresh_s`; in an outage the last good ones serve."""

    def __init__(self, pool: Pool, default_percentages: Iterable[int], refresh_s: float) -> None:
        self._pool, self._defaults, self._refresh_s = pool, tuple(default_percentages), refresh_s
        self._rules: AlertRules | None = None
        self._tried_at: float | None = None
        self._turn = asyncio.Lock()

    async def get(self) -> AlertRules:
        """Return the rules; psycopg's errors while none could be read yet, for defaults may not be what was asked."""
        async with self._turn:
            if self._tried_at is None or time.monotonic() - self._tried_at >= self._refresh_s:
                try:
                    async with self._pool.connection(timeout=1) as connection:
                        self._rules = await read_alert_rules(connection, self._defaults)
                except (psycopg.Error, PoolTimeout) as error:
                    if self._rules is None:
                        raise
                    log.warning("alert_rules.stale", error=str(error))
                self._tried_at = time.monotonic()
            assert self._rules is not None
            return self._rules


def _check_meaning(given: Mapping[str, Any]) -> list[Fault]:
    kind, faults = given["kind"], []
    value, meter, charge = given.get("value"), given.get("meter"), given.get("charge")
    if kind == "anomaly":
        if value is not None:
            faults.append(Fault("invalid_value", "anomalies have no threshold", "value"))
    elif _read_value(value) is None:
        faults.append(Fault("invalid_value", "expected a decimal text above zero, up to 26.12 digits", "value"))
    if kind == "money":
        if given.get("currency") not in MINOR_UNITS:
            faults.append(Fault("unknown_currency", f"expected one of {', '.join(MINOR_UNITS)}", "currency"))
        if meter is not None and charge is not None:
            faults.append(Fault("invalid_scope", "money is of a meter or of a charge, not of both", "charge"))
    else:
        if given.get("currency") is not None:
            faults.append(Fault("invalid_scope", "only money has a currency", "currency"))
        if charge is not None:
            faults.append(Fault("invalid_scope", "only money can be of a charge", "charge"))
    if kind == "units" and meter is None:
        faults.append(Fault("invalid_scope", "units need a meter: those of one are not those of another", "meter"))
    return faults


def _read_value(value: Any) -> Decimal | None:
    """Return the threshold; numbers are taken as texts are, floats are not exact and refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str | Decimal) or not _VALUE.fullmatch(f"{value}"):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number > 0 else None


def _rule_of(row: Mapping[str, Any]) -> AlertRule:
    value = row["value"]
    return AlertRule(**{**row, "value": None if value is None else Decimal(value), "channels": tuple(row["channels"])})


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
