"""What alerts need of the outside: a store of alerts and deliveries, channels, costs, and usage by hour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from alerts.domain.alert import Alert, AlertKind
from alerts.domain.episodes import Episode
from alerts.domain.retry import Attempt, Plan
from alerts.domain.spend import ChargeCost, SpendKey, SpendState


@dataclass(frozen=True, slots=True)
class Claim:
    """An alert to be told once: on `channels`, and as a webhook with `webhook_data` unless that is None.

    `payload` is the message that caused it, as JSON.
    """

    alert: Alert
    tenant_id: str
    payload: bytes
    channels: tuple[str, ...]
    webhook_data: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on one channel; `payload` is the message that caused it as JSON, `attempts` the tries so far."""

    alert_id: str
    channel: str
    kind: AlertKind
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
    """Where alerts are claimed and deliveries wait until they are sent."""

    async def claim(self, claim: Claim, now: datetime) -> bool:
        """Write the alert with a pending delivery per channel and webhook endpoint; False if it was claimed before."""
        ...

    def hold_due(self, channel: str, now: datetime) -> AbstractAsyncContextManager[HeldDelivery | None]:
        """Hold the channel's most overdue delivery, None if none is due."""
        ...


class Channel(Protocol):
    """A way to tell people."""

    name: str

    async def send(self, alert: Alert, claimed_at: datetime) -> Attempt:
        """Send once and say what became of it; never raises for what the receiver does."""
        ...


class CostBook(Protocol):
    """Running costs as they stand now."""

    async def costs(self, months: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], Sequence[ChargeCost]]:
        """Return the costs by charge of each (tenant, month) asked for."""
        ...

    async def months_with_costs(self, periods: Collection[str]) -> Sequence[tuple[str, str]]:
        """Return each tenant and period, of those asked for, that has running costs."""
        ...


class HeldSpend(Protocol):
    """The spend states of one tenant and month, which nobody else can change while they are held."""

    states: Mapping[SpendKey, SpendState]

    async def save(self, key: SpendKey, state: SpendState, now: datetime) -> None:
        """Write one state."""
        ...

    async def claim(self, claim: Claim, now: datetime) -> bool:
        """Claim an alert together with the states: both or neither."""
        ...


class SpendStates(Protocol):
    """Which money thresholds are reached."""

    async def read(
        self, months: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], Mapping[SpendKey, SpendState]]:
        """Return the states of each (tenant, month) that has any."""
        ...

    def hold(self, tenant_id: str, period: str) -> AbstractAsyncContextManager[HeldSpend]:
        """Hold a tenant's month."""
        ...


@dataclass(frozen=True, slots=True)
class HourlyUsage:
    """Usage of a meter within one hour; `hour_start` is aware and in UTC."""

    hour_start: datetime
    quantity: Decimal
    events: int


class UsageHistory(Protocol):
    """Counted usage by the hour, and how far it is complete."""

    async def watermark(self) -> datetime | None:
        """Return the event time up to which every partition's usage is stored; None while nothing is."""
        ...

    async def hourly(
        self, meter: str, start: datetime, end: datetime, *, part: int, parts: int
    ) -> Mapping[str, Sequence[HourlyUsage]]:
        """Return by tenant the hours of `[start, end)` that have usage, oldest first.

        Tenants are split into `parts` by their ids, so that not all of them need to fit into memory at once.
        """
        ...


class HeldMeter(Protocol):
    """One meter's progress and episodes, which nobody else can change while they are held."""

    judged_until: datetime | None
    going_on: Mapping[str, Sequence[Episode]]

    async def save(self, tenant_id: str, episodes: Sequence[Episode]) -> None:
        """Write a tenant's changed episodes."""
        ...

    async def claim(self, claim: Claim, now: datetime) -> bool:
        """Claim an alert together with the progress: both or neither."""
        ...

    async def advance(self, judged_until: datetime) -> None:
        """Write up to where usage was judged."""
        ...


class AnomalyStates(Protocol):
    """How far usage was judged, and which stretches of unusual usage go on."""

    def hold(self, meter: str) -> AbstractAsyncContextManager[HeldMeter | None]:
        """Hold a meter; None if another worker holds it."""
        ...
