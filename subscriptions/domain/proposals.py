"""Proposed changes of a subscription: when they count and whether they may be put down beside what is there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from core.errors import Fault
from core.period import format_instant
from rating.domain.subscription import Subscription
from rating.domain.timeline import Change, ChangeKind, State, Timeline, cut_to_minute, replay, standing_changes

# How far back a change may count without being asked for; invoices of that time are corrected by a difference.
BACKDATING = timedelta(days=31)
_PLAN = frozenset({ChangeKind.PLAN_CHANGED, ChangeKind.MIGRATED})
_PAUSE = frozenset({ChangeKind.PAUSED, ChangeKind.RESUMED, ChangeKind.TRIAL_ENDED})
_LIFE = frozenset({ChangeKind.CANCELED, ChangeKind.REACTIVATED, ChangeKind.RENEWED})
_ADD_ON = frozenset({ChangeKind.ADD_ON_ADDED, ChangeKind.ADD_ON_REMOVED})
# Doing it earlier is what whoever asks for it again means.
_SUPERSEDING = frozenset({ChangeKind.CANCELED, ChangeKind.RESUMED, ChangeKind.TRIAL_ENDED})
_BEGINNING_AGAIN = frozenset({ChangeKind.REACTIVATED, ChangeKind.RENEWED})
# They decide nothing that a later change would undo.
_FREE = _BEGINNING_AGAIN | {ChangeKind.WITHDRAWN}


class Moment(Enum):
    """When a change counts, if not at an instant that was named."""

    NOW = "now"
    # With the end of the billing period that is running; of the trial, while there is one.
    PERIOD_END = "period_end"


When = Moment | datetime


@dataclass(frozen=True, slots=True)
class Proposed:
    """A change that is not put down yet; `effective_at` is on a whole minute."""

    kind: ChangeKind
    effective_at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)


def resolve(when: When, subscription: Subscription, timeline: Timeline, now: datetime) -> datetime:
    """Return the instant that is meant, cut to the minute. Before the start, "now" is the start."""
    if isinstance(when, datetime):
        return cut_to_minute(when)
    present = max(cut_to_minute(now), subscription.started_at)
    if when is Moment.NOW:
        return present
    held, trial_ends_at = timeline.at(present), subscription.start.trial_ends_at
    if held is not None and held.state is State.TRIAL and trial_ends_at is not None:
        return trial_ends_at
    return timeline.cycle.period_at(present).end


def when_text(when: When) -> str:
    """Return a moment as requests are compared by."""
    return format_instant(when) if isinstance(when, datetime) else when.value


def superseded(subscription: Subscription, proposed: Sequence[Proposed], now: datetime) -> list[Change]:
    """Return scheduled changes that earlier ones of the same kind stand in for: an end, a resumption, a trial's end."""
    scheduled = [one for one in standing_changes(subscription.changes) if one.effective_at > now]
    earlier = {one.kind: one.effective_at for one in proposed if one.kind in _SUPERSEDING}
    return [one for one in scheduled if one.kind in earlier and earlier[one.kind] < one.effective_at]


def in_the_way(subscription: Subscription, proposed: Sequence[Proposed], now: datetime) -> list[Change]:
    """Return later changes that a proposed one would come before and that decide the same: they would undo it unseen.

    An end comes before everything that is scheduled after it.
    """
    standing = standing_changes(subscription.changes)
    return [one for one in standing if any(_collides(one, new, now) for new in proposed)]


def refusals(
    subscription: Subscription,
    proposed: Sequence[Proposed],
    withdrawn: Iterable[Change],
    *,
    now: datetime,
    allow_backdated: bool,
) -> list[Fault]:
    """Return every reason why the proposed changes cannot be put down once the `withdrawn` ones are taken back.

    Codes: `change_scheduled`, `later_change`, `backdated`, and those of `rating.domain.timeline.replay`.
    """
    gone = {one.sequence for one in withdrawn}
    faults = [_told(one, now) for one in in_the_way(subscription, proposed, now) if one.sequence not in gone]
    earliest = cut_to_minute(now) - BACKDATING
    faults += [
        Fault(
            "backdated",
            f"{format_instant(one.effective_at)} is more than {BACKDATING.days} days ago: ask for backdating",
            "at",
        )
        for one in proposed
        if one.effective_at < earliest and not allow_backdated
    ]
    if not faults:
        kept = [one for one in standing_changes(subscription.changes) if one.sequence not in gone]
        last = max((one.sequence for one in kept), default=0)
        new = [Change(last + at, one.kind, one.effective_at, now, one.payload) for at, one in enumerate(proposed, 1)]
        faults = [fault for _, fault in replay(subscription.start, [*kept, *new]).faults]
    return faults


def _collides(standing: Change, new: Proposed, now: datetime) -> bool:
    if new.kind in _FREE:
        return False
    if new.kind is ChangeKind.CANCELED:
        return standing.effective_at > new.effective_at
    later = standing.effective_at > new.effective_at
    # Two changes within the same minute are in order; two for the same later moment are not meant both.
    same = standing.effective_at == new.effective_at > now
    return (later or same) and _aspects(standing.kind, standing.payload) & _aspects(new.kind, new.payload) != set()


def _aspects(kind: ChangeKind, payload: Mapping[str, Any]) -> set[str]:
    """Return what a change decides."""
    if kind in _ADD_ON:
        return {f"add-on {payload['plan_id']}"}
    if "add_on" in payload:
        return {f"add-on {payload['add_on']}"}
    if kind in _PLAN:
        return {"plan", "quantity"} if "quantity" in payload else {"plan"}
    if kind is ChangeKind.QUANTITY_CHANGED:
        return {"quantity"}
    return {"pause"} if kind in _PAUSE else {"life"}


def _told(change: Change, now: datetime) -> Fault:
    what, at = f"change {change.sequence} ({change.kind.value})", format_instant(change.effective_at)
    if change.effective_at > now:
        reason = f"{what} is scheduled for {at}: withdraw it first, or ask to replace it"
        return Fault("change_scheduled", reason, "at")
    return Fault("later_change", f"{what} counts since {at}, which is later", "at")
