"""Contracts as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from catalogues.contracts.ports import StoredContract
from catalogues.contracts.succession import Steps
from catalogues.domain.difference import FieldChange, compare_documents
from catalogues.show_difference import date_text, move_text, path_text, percent_text, table_lines
from core.period import format_instant
from rating.domain.contract import Contract
from rating.domain.override_plan import override_plan


def contract_document(stored: StoredContract, now: datetime) -> dict[str, Any]:
    """Return a version of a contract as JSON."""
    one = stored.contract
    return {
        "contract": one.contract_id,
        "version": one.version,
        "tenant": one.tenant_id,
        "plan": one.plan_id,
        "state": state_of(stored, now),
        "time_zone": stored.time_zone,
        "valid_from": format_instant(one.valid_from),
        "valid_until": format_instant(one.valid_until) if one.valid_until else None,
        "overrides": dict(one.overrides),
        "proration": one.convention,
        "net_days": one.net_days,
        "digest": stored.digest,
        "created_at": format_instant(stored.created_at),
        "document": dict(stored.document),
    }


def state_of(stored: StoredContract, now: datetime) -> str:
    """Return what a version is now: `withdrawn`, `planned`, `valid` or `ended`."""
    if stored.withdrawn_at is not None:
        return "withdrawn"
    if now < stored.contract.valid_from:
        return "planned"
    return "valid" if stored.contract.holds_at(now) else "ended"


def list_text(contracts: Sequence[StoredContract], now: datetime) -> str:
    """Return contracts as a table, one version a line."""
    if not contracts:
        return "no contracts"
    head = ("CONTRACT", "VERSION", "TENANT", "PLAN", "STATE", "FROM", "UNTIL", "PRORATION", "NET DAYS")
    rows = [head, *(_row(stored, now) for stored in contracts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def version_text(stored: StoredContract, plan: Mapping[str, Any] | None, now: datetime) -> str:
    """Return one version with its terms; with the plan's document, what it makes of the plan, price by price."""
    one = stored.contract
    zone = stored.time_zone
    until = f"until {date_text(one.valid_until, zone)}" if one.valid_until else "without end"
    title = f"{one.contract_id} version {one.version}: {one.tenant_id} on {one.plan_id}"
    place = "" if zone == "UTC" else f" ({zone})"
    lines = [f"{title}, {state_of(stored, now)}, from {date_text(one.valid_from, zone)} {until}{place}"]
    if one.convention is not None:
        lines.append(f"  proration: {one.convention}")
    if one.net_days is not None:
        lines.append(f"  invoices are due after {one.net_days} days")
    if plan is not None:
        lines += _table(compare_documents(plan, override_plan(plan, one.overrides)))
    return "\n".join(lines)


def steps_text(steps: Steps, time_zone: str = "UTC") -> Iterable[str]:
    """Yield what was done to versions that were there."""
    for one, until in steps.shorten:
        yield f"{_title(one)} ends {date_text(until, time_zone)}"
    for one in steps.withdraw:
        yield f"{_title(one)} was withdrawn before it began"


def steps_document(contract_id: str, steps: Steps) -> dict[str, Any]:
    """Return what was done to versions of a contract as JSON."""
    return {
        "contract": contract_id,
        "shortened": [{"version": one.version, "valid_until": format_instant(until)} for one, until in steps.shorten],
        "withdrawn": [{"version": one.version} for one in steps.withdraw],
    }


def _title(contract: Contract) -> str:
    return f"{contract.contract_id} version {contract.version}"


def _row(stored: StoredContract, now: datetime) -> tuple[str, ...]:
    one = stored.contract
    return (
        one.contract_id,
        str(one.version),
        one.tenant_id,
        one.plan_id,
        state_of(stored, now),
        date_text(one.valid_from, stored.time_zone),
        date_text(one.valid_until, stored.time_zone) if one.valid_until else "-",
        one.convention or "-",
        "-" if one.net_days is None else str(one.net_days),
    )


def _table(changes: Iterable[FieldChange]) -> list[str]:
    rows = [
        (path_text(one.path[1:] if one.path[0] == "charges" else one.path), move_text(one), percent_text(one))
        for one in changes
        if one.path[-1] != "(order)"
    ]
    return table_lines(rows)
