"""What the demo sends: events with their truth, before duplicates and disorder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class DemoTenant:
    """A tenant of the demo and how it pays."""

    tenant_id: str
    name: str
    plan: str
    email: str
    country: str = "US"
    address: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    pays: bool = True


@dataclass(frozen=True, slots=True)
class DemoEvent:
    """One usage event: `quantities` are decimal texts by data property, `dimensions` texts."""

    tenant: str
    event_id: str
    source: str
    type: str
    occurred_at: datetime
    quantities: dict[str, str]
    dimensions: dict[str, str]
    # The text of the time where more digits are known than a datetime holds.
    time_text: str = ""

    def cloud_event(self) -> dict[str, Any]:
        """Return the CloudEvent as a dictionary."""
        return {
            "specversion": "1.0",
            "id": self.event_id,
            "source": self.source,
            "type": self.type,
            "subject": self.tenant,
            "time": self.time_text or self.occurred_at.isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": {**self.quantities, **self.dimensions},
        }

    def body(self) -> bytes:
        """Return the CloudEvent as structured JSON."""
        return json.dumps(self.cloud_event(), separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Usage:
    """A whole demo's usage: tenants, distinct events, the months to invoice, and bytes that must be refused."""

    tenants: Sequence[DemoTenant]
    events: Sequence[DemoEvent]
    months: Sequence[str]
    poison: Sequence[tuple[str, bytes | None]]
    # When subscriptions start: before the first event.
    started_at: datetime
