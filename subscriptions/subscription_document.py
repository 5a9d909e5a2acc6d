"""A subscription as documents and as text for people: what is held when, and how it came about."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from core.period import format_instant
from rating.domain.cycle import Interval
from rating.domain.price import plain
from rating.domain.subscription import Request, Subscription
from rating.domain.timeline import Change, ChangeKind, Held, Phase, Timeline

_EVERY = {Interval.MONTH: "month", Interval.QUARTER: "quarter", Interval.YEAR: "year"}


def as_document(subscription: Subscription, *, now: datetime, known_at: datetime | None = None) -> dict[str, Any]:
    """Return all about a subscription as JSON, as known at an instant (as known now if None)."""
    timeline = subscription.timeline(known_at=known_at)
    start = subscription.start
    held = timeline.at(now)
    return {
        "subscription_id": subscription.subscription_id,
        "tenant_id": subscription.tenant_id,
        "status": status_of(timeline, now),
        "interval": start.cycle.interval.value,
        "anchor": start.cycle.anchor.isoformat(),
        "time_zone": start.cycle.time_zone,
        "convention": start.convention.value,
        "started_at": format_instant(start.started_at),
        "ended_at": format_instant(timeline.ended_at) if timeline.ended_at else None,
        "trial_ends_at": format_instant(start.trial_ends_at) if start.trial_ends_at else None,
        "period": _period_document(timeline, now) if held else None,
        "held": held_document(held) if held else None,
        "phases": [_phase_document(phase) for phase in timeline.phases],
        "changes": [
            change_document(change, request)
            for change, request in subscription.entries
            if known_at is None or change.recorded_at <= known_at
        ],
    }


def status_of(timeline: Timeline, now: datetime) -> str:
    """Return `scheduled`, the state it is in, `canceled` (it ended), with ` (ending)` if an end is to come."""
    held = timeline.at(now)
    if held is None:
        started = timeline.started_at
        return "scheduled" if started is not None and now < started else "canceled"
    return f"{held.state.value}{' (ending)' if timeline.ended_at else ''}"


def held_document(held: Held) -> dict[str, Any]:
    """Return what is held as JSON; quantities are strings."""
    return {
        "plan_id": held.plan_id,
        "plan_version": held.plan_version,
        "overrides": dict(held.overrides),
        "quantity": plain(held.quantity),
        "add_ons": [
            {"plan_id": one.plan_id, "plan_version": one.plan_version, "quantity": plain(one.quantity)}
            for one in held.add_ons
        ],
        "state": held.state.value,
    }


def change_document(change: Change, request: Request) -> dict[str, Any]:
    """Return a change as JSON, with who asked for it and why."""
    return {
        "sequence": change.sequence,
        "kind": change.kind.value,
        "effective_at": format_instant(change.effective_at),
        "recorded_at": format_instant(change.recorded_at),
        "payload": dict(change.payload),
        "recorded_by": request.recorded_by,
        "reason": request.reason,
        "request_key": request.key,
    }


def show_lines(subscription: Subscription, *, now: datetime, known_at: datetime | None = None) -> list[str]:
    """Return the timeline and the changes as lines of text, times in the subscription's own zone."""
    timeline = subscription.timeline(known_at=known_at)
    cycle, zone = timeline.cycle, timeline.cycle.time_zone
    lines = [
        f"{timeline.subscription_id}  tenant {timeline.tenant_id}  {status_of(timeline, now)}",
        f"billed by the {_EVERY[cycle.interval]}, periods counted from {cycle.anchor}, times in {cycle.time_zone},"
        f" shares by {timeline.convention.value}",
    ]
    if timeline.at(now) is not None:
        period = cycle.period_at(now)
        lines.append(f"this period: {_local(period.start, zone)} to {_local(period.end, zone)}")
    if known_at is not None:
        lines.append(f"as known at {_local(known_at, zone)}")
    lines.append("")
    for phase in timeline.phases:
        marker = "▶" if now in phase else " "
        until = _local(phase.end, zone) if phase.end else "open"
        lines.append(f"{marker} {_local(phase.start, zone)} → {until:<16}  {_held_text(phase.held)}")
    if not timeline.phases:
        lines.append("  nothing is held")
    shown = [pair for pair in subscription.entries if known_at is None or pair[0].recorded_at <= known_at]
    if shown:
        lines += ["", "changes"]
    taken_back = {one.payload["sequence"]: one for one, _ in shown if one.kind is ChangeKind.WITHDRAWN}
    for change, request in shown:
        note = f", withdrawn by {taken_back[change.sequence].sequence}" if change.sequence in taken_back else ""
        why = f": {request.reason}" if request.reason else ""
        lines.append(
            f"{change.sequence:>3} {_change_text(change)} from {_local(change.effective_at, zone)}"
            f" (put down {_local(change.recorded_at, zone)} by {request.recorded_by}{why}{note})"
        )
    return lines


def _period_document(timeline: Timeline, now: datetime) -> dict[str, str]:
    period = timeline.cycle.period_at(now)
    return {"start": format_instant(period.start), "end": format_instant(period.end)}


def _phase_document(phase: Phase) -> dict[str, Any]:
    return {
        "start": format_instant(phase.start),
        "end": format_instant(phase.end) if phase.end else None,
        **held_document(phase.held),
    }


def _held_text(held: Held) -> str:
    add_ons = "".join(f" + {one.plan_id} v{one.plan_version} × {plain(one.quantity)}" for one in held.add_ons)
    overridden = " (overridden)" if held.overrides else ""
    return f"{held.state.value:<7} {held.plan_id} v{held.plan_version}{overridden} × {plain(held.quantity)}{add_ons}"


def _change_text(change: Change) -> str:
    payload = change.payload
    details = [str(payload[name]) for name in ("plan_id", "add_on") if name in payload]
    details += [f"v{payload['plan_version']}"] if "plan_version" in payload else []
    details += [f"× {payload['quantity']}"] if "quantity" in payload else []
    details += [f"change {payload['sequence']}"] if "sequence" in payload else []
    return " ".join([change.kind.value.replace("_", " "), *details])


def _local(instant: datetime, zone: str) -> str:
    return instant.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M")
