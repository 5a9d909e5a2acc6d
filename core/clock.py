"""Where "now" comes from. Domain code takes instants as arguments; entry points hand in a `Clock`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Gives the present instant, aware and in UTC."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)


@dataclass
class ManualClock:
    """A clock that moves only when told to; for tests and simulations."""

    instant: datetime

    def now(self) -> datetime:
        """Return the instant it was last set to."""
        return self.instant

    def travel_to(self, instant: datetime | str) -> None:
        """Set the clock; a string is ISO 8601, read as UTC when it names no zone."""
        parsed = datetime.fromisoformat(instant) if isinstance(instant, str) else instant
        self.instant = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)

    def advance(self, step: timedelta) -> None:
        """Move the clock forward by `step`."""
        self.instant += step
