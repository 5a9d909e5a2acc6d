"""When which step of dunning is due. Owns steps, schedules, and what lateness does to what follows.

Days are those of the tenant's calendar, steps come at an hour of its day. A step that came late, because the scheduler
stood still or dunning was paused, moves all that follow: nobody gets a reminder, a final notice and a suspension in one
minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from core.calendar import Calendar
from core.errors import must_hold

# Less is how schedulers are: they look every minute, and may be restarted.
_LATE = timedelta(days=1)


class StepKind(StrEnum):
    """What a step does."""

    # Mails: the date comes near; a charge failed; a reminder; the last one before consequences.
    UPCOMING = "upcoming"
    PAYMENT_FAILED = "payment_failed"
    REMINDER = "reminder"
    FINAL_NOTICE = "final_notice"
    # Charge again what is open.
    RETRY = "retry"
    # The account is suspended (with a mail), then given to people to collect.
    SUSPENSION = "suspension"
    COLLECTION = "collection"


MAILED = frozenset(StepKind) - {StepKind.RETRY, StepKind.COLLECTION}


class Anchor(StrEnum):
    """From what a step's days are counted."""

    DUE = "due"
    # The first failed charge; without one the step is never due.
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `name` tells it from others of its kind (`retry-2`); `days` below zero are before the due date."""

    name: str
    kind: StepKind
    anchor: Anchor
    days: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps for one way of paying, in order, and after how many days beyond due an account is past due."""

    name: str
    steps: tuple[Step, ...]
    grace_days: int
    # Of the tenant's day.
    hour: int = 9

    def __post_init__(self) -> None:
        must_hold(len({step.name for step in self.steps}) == len(self.steps), f"{self.name}: two steps of one name")


@dataclass(frozen=True, slots=True)
class Schedules:
    """Which schedule counts for whom: by tier (plan), for charged invoices and for those paid by transfer."""

    charged: Mapping[str, Schedule]
    transferred: Mapping[str, Schedule]

    def for_tier(self, tier: str, *, is_charged: bool) -> Schedule:
        """Return the schedule of a tier, `default` where it has none of its own."""
        by_tier = self.charged if is_charged else self.transferred
        return by_tier.get(tier) or by_tier["default"]

    @property
    def longest_before_due(self) -> timedelta:
        """How long before the due date something may be due at the earliest."""
        every = [*self.charged.values(), *self.transferred.values()]
        days = [step.days for one in every for step in one.steps if step.anchor is Anchor.DUE]
        return timedelta(days=max(0, -min(days, default=0)) + 2)


@dataclass(frozen=True, slots=True)
class DoneStep:
    """A step that was taken: when it was planned for, and when it was done."""

    name: str
    planned_at: datetime
    done_at: datetime


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step with the instant from which it is due."""

    step: Step
    due_at: datetime


def plan_steps(
    schedule: Schedule,
    *,
    calendar: Calendar,
    due_at: datetime,
    failed_at: datetime | None,
    done: Sequence[DoneStep],
) -> list[PlannedStep]:
    """Return the steps not taken yet, in the order in which they fall due.

    `failed_at` is when the first charge failed, None if none did. Each is due by the schedule, plus what the steps
    taken before it were late by more than a day.
    """
    taken = {one.name: one for one in done}
    planned = []
    for place, step in enumerate(schedule.steps):
        anchor = due_at if step.anchor is Anchor.DUE else failed_at
        if anchor is not None:
            planned.append((at_hour(calendar, anchor, step.days, schedule.hour), place, step))
    late = timedelta(0)
    for one in sorted(taken.values(), key=lambda each: (each.done_at, each.planned_at)):
        behind = one.done_at - one.planned_at
        late += behind if behind > _LATE else timedelta(0)
    left = [(at, place, step) for at, place, step in planned if step.name not in taken]
    return [PlannedStep(step, at + late) for at, _, step in sorted(left, key=lambda each: each[:2])]


def at_hour(calendar: Calendar, anchor: datetime, days: int, hour: int) -> datetime:
    """Return the given hour of the local day that is `days` after the anchor's, never before the anchor for day 0 on.

    An hour that the clocks skip is the instant at which they move (PEP 495, fold=0 read in UTC).
    """
    day: date = calendar.local_day(anchor) + timedelta(days=days)
    local = datetime.combine(day, time(hour), ZoneInfo(calendar.time_zone))
    instant = local.astimezone(UTC)
    return max(instant, anchor.astimezone(UTC)) if days >= 0 else instant
