"""Reservations: usage promised before it happens. Owns what may be asked for, and which refusals there are.

A reservation names the usage event that will come of it: when that event is in the live total, the reservation is over,
so what is reserved counts once, whether the event comes before the commit or after.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from core.errors import ConflictError, Fault, InvalidInputError
from core.ids import derive_id
from core.quantity import LIMIT, format_scaled, scale_quantity
from core.usage_event import event_identity

SOURCE = "meterbook:reservations"
HOLD_SECONDS_MAX = 86_400
# How long a commit waits for its event: longer than any outage of a producer that we would not hear of.
SETTLE_SECONDS_DEFAULT = 86_400
SETTLE_SECONDS_MAX = 7 * 86_400
OPEN_MAX = 1_000
_NAME_MAX = 256

Status = Literal["held", "refused", "committed", "released", "settled"]


class QuotaExceededError(ConflictError):
    """What is asked for is more than is left."""

    code = "quota_exceeded"


class ReservationOverError(ConflictError):
    """The reservation is over: it expired, was released, or was refused."""

    code = "reservation_over"


class ExceedsHoldError(ConflictError):
    """More is committed than was held; hold the rest first, for an event of its own."""

    code = "exceeds_hold"


class OtherRequestError(ConflictError):
    """The same key came with another request before."""

    code = "idempotency_conflict"


class TooManyReservationsError(ConflictError):
    """The tenant has as many open reservations of this meter as there may be."""

    code = "too_many_reservations"


@dataclass(frozen=True, slots=True)
class Reservation:
    """As it is written down. `expires_at`: until when it counts, by the clock of Redis; `event` is (source, id)."""

    reservation_id: str
    tenant_id: str
    meter_id: str
    amount: Decimal
    status: Status
    source: str
    event_id: str
    request_sha256: str
    created_at: datetime
    expires_at: datetime

    @property
    def identity(self) -> bytes:
        """The identity of the event that will come of it."""
        return event_identity(self.tenant_id, self.source, self.event_id)


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Please hold an amount of a meter for some seconds. `source` and `event_id` name the event; "" lets us choose."""

    tenant_id: str
    meter_id: str
    amount: Decimal
    ttl_seconds: int
    key: str
    source: str = ""
    event_id: str = ""

    @property
    def sha256(self) -> str:
        """What tells this request from another with the same key."""
        amount = scale_quantity(self.amount)
        parts = (self.meter_id, str(amount), str(self.ttl_seconds), self.source, self.event_id)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    @property
    def reservation_id(self) -> str:
        """The same key names the same reservation."""
        return derive_id("rsv", self.tenant_id, self.key)


def check_hold(request: HoldRequest) -> HoldRequest:
    """Return the request; raises `InvalidInputError` with all faults."""
    faults = []
    if isinstance(scale_quantity(request.amount), str) or request.amount <= 0:
        faults.append(Fault("invalid_amount", f"expected a quantity above 0 and below {LIMIT}", "amount"))
    if not 1 <= request.ttl_seconds <= HOLD_SECONDS_MAX:
        faults.append(Fault("invalid_ttl", f"expected 1 to {HOLD_SECONDS_MAX} seconds", "ttl_seconds"))
    if not request.key or len(request.key) > _NAME_MAX:
        faults.append(Fault("invalid_key", f"expected 1 to {_NAME_MAX} characters", "key"))
    for name in ("source", "event_id"):
        value: str = getattr(request, name)
        if len(value) > _NAME_MAX or not value.isprintable():
            faults.append(Fault("invalid_event", f"expected at most {_NAME_MAX} printable characters", name))
    if faults:
        raise InvalidInputError(faults)
    return request


def plain(quantity: Decimal) -> str:
    """Return a quantity as a plain decimal text."""
    scaled = scale_quantity(quantity)
    return format_scaled(scaled) if isinstance(scaled, int) else f"{quantity:f}"
