"""A subscription on record: how it began, every change since, and the requests behind them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rating.domain.timeline import Change, SubscriptionStart, Timeline, build_timeline


@dataclass(frozen=True, slots=True)
class Request:
    """Who asked for something and why; `key` and `sha256` (of what was asked for) tell when it is asked for again.

    Both are empty where nobody will ask again.
    """

    recorded_by: str
    reason: str = ""
    key: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Subscription:
    """How it began, with the request behind it, and its changes in the order they were put down, with theirs."""

    start: SubscriptionStart
    request: Request
    entries: tuple[tuple[Change, Request], ...] = ()

    @property
    def subscription_id(self) -> str:
        """Its id."""
        return self.start.subscription_id

    @property
    def tenant_id(self) -> str:
        """Whose it is."""
        return self.start.tenant_id

    @property
    def plan_id(self) -> str:
        """The plan it began with."""
        return self.start.held.plan_id

    @property
    def plan_version(self) -> int:
        """The version of the plan it began with."""
        return self.start.held.plan_version

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The overrides it began with."""
        return self.start.held.overrides

    @property
    def started_at(self) -> datetime:
        """When it began."""
        return self.start.started_at

    @property
    def ended_at(self) -> datetime | None:
        """When it ended or will end, None while there is no end."""
        return self.timeline().ended_at

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes, withdrawn ones and withdrawals among them."""
        return tuple(change for change, _ in self.entries)

    def timeline(self, *, known_at: datetime | None = None) -> Timeline:
        """Return the timeline as known at an instant, as known now if None."""
        return build_timeline(self.start, self.changes, known_at=known_at)

    def asked_with(self, key: str) -> tuple[tuple[Change, Request], ...]:
        """Return the changes that a request with this key made."""
        return tuple((change, request) for change, request in self.entries if request.key == key)
