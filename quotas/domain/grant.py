"""Grants: amounts on top of a limit. Owns when they are filled, what a reset leaves of them, and their burn order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

from core.errors import Fault, InvalidInputError
from core.quantity import LIMIT, scale_quantity

Recurrence = Literal["none", "monthly", "yearly"]
PRIORITY_MAX = 255
REASON_MAX = 500


@dataclass(frozen=True, slots=True)
class Grant:
    """An amount of a metered feature, from `effective_at` until `expires_at` (None: for good), both on whole hours.

    A recurring grant is filled up to its amount again each month or year. When the period of the entitlement resets,
    what is left becomes min(max(left, rollover_min), rollover_max): with both 0 nothing is carried over.
    """

    grant_id: str
    amount: Decimal
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    recurrence: Recurrence
    rollover_min: Decimal
    rollover_max: Decimal
    created_at: datetime
    reason: str = ""

    @property
    def burn_order(self) -> tuple[int, bool, datetime, datetime, str]:
        """Lower priority number first, then what expires earlier (never: last), then what was created earlier."""
        expires_at = self.expires_at or datetime.max.replace(tzinfo=UTC)
        return (self.priority, self.expires_at is None, expires_at, self.created_at, self.grant_id)

    def fillings(self, until: datetime) -> Iterator[datetime]:
        """Yield the instants up to `until` at which the grant is filled to its amount; the first is `effective_at`."""
        number, instant = 0, self.effective_at
        while instant <= until and (self.expires_at is None or instant < self.expires_at):
            yield instant
            if self.recurrence == "none":
                return
            number += 1 if self.recurrence == "monthly" else 12
            instant = _months_later(self.effective_at, number)

    def holds_at(self, instant: datetime) -> bool:
        """Say whether it is in effect."""
        return self.effective_at <= instant and (self.expires_at is None or instant < self.expires_at)


def check_grant(grant: Grant) -> Grant:
    """Return the grant; raises `InvalidInputError` with all faults."""
    faults = []
    if isinstance(scale_quantity(grant.amount), str) or grant.amount == 0:
        faults.append(Fault("invalid_amount", f"expected a quantity above 0 and below {LIMIT}", "amount"))
    if not 0 <= grant.priority <= PRIORITY_MAX:
        faults.append(Fault("invalid_priority", f"expected 0 to {PRIORITY_MAX}", "priority"))
    for name in ("effective_at", "expires_at"):
        instant: datetime | None = getattr(grant, name)
        if instant is not None and instant != instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0):
            faults.append(Fault("not_on_the_hour", "expected a whole hour of UTC", name))
    if grant.expires_at is not None and grant.expires_at <= grant.effective_at:
        faults.append(Fault("invalid_expiry", "it would expire before it is in effect", "expires_at"))
    bounds = (grant.rollover_min, grant.rollover_max)
    if any(isinstance(scale_quantity(bound), str) for bound in bounds) or grant.rollover_min > grant.rollover_max:
        faults.append(Fault("invalid_rollover", "expected 0 <= rollover_min <= rollover_max", "rollover_max"))
    if len(grant.reason) > REASON_MAX:
        faults.append(Fault("too_long", f"at most {REASON_MAX} characters", "reason"))
    if faults:
        raise InvalidInputError(faults)
    return grant


def _months_later(instant: datetime, months: int) -> datetime:
    """Return the same day and hour of UTC some months later, or the last day of that month if it has no such day."""
    year, month = divmod(instant.year * 12 + instant.month - 1 + months, 12)
    following = datetime(year + (month == 11), (month + 1) % 12 + 1, 1, tzinfo=UTC)
    last_day = (following - timedelta(days=1)).day
    return instant.replace(year=year, month=month + 1, day=min(instant.day, last_day))
