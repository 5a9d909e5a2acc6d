"""What alerts need of the outside: a store of deliveries, and channels that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from alerts.domain.quota_alert import QuotaAlert
from alerts.domain.retry import Attempt, Plan


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on one channel; `payload` is the message `quota.crossed` as JSON, `attempts` the tries so far."""

    alert_id: str
    channel: str
    payload: bytes
    attempts: int
    created_at: datetime


class HeldDelivery(Protocol):
    """A due delivery that nobody else can take while it is held."""

    delivery: Delivery

    async def record(self, plan: Plan, *, error: str, now: datetime) -> None:
        """Write down what became of the try."""
        ...


class DeliveryStore(Protocol):
    """Where deliveries wait until they are sent."""

    async def claim(self, alert_id: str, tenant_id: str, channels: Sequence[str], payload: bytes, now: datetime) -> int:
        """Write one pending delivery per channel; returns how many are new."""
        ...

    def hold_due(self, channel: str, now: datetime) -> AbstractAsyncContextManager[HeldDelivery | None]:
        """Hold the channel's most overdue delivery, None if none is due."""
        ...


class Channel(Protocol):
    """A way to tell people."""

    name: str

    async def send(self, alert: QuotaAlert, claimed_at: datetime) -> Attempt:
        """Send once and say what became of it; never raises for what the receiver does."""
        ...
