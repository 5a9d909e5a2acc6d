"""What PayPal's own lane needs of the outside: keys of certificates, PayPal's judgement, orders to capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import rsa

from payments.domain.payment import Outcome, Payment


class UntrustedCertificateError(Exception):
    """The certificate is not PayPal's, or nobody we trust vouches for it now. No fault of the network's."""


class KeyFinder(Protocol):
    """Finds the key of the certificate that a webhook names."""

    def is_allowed(self, url: str) -> bool:
        """Tell whether PayPal keeps its certificates there."""
        ...

    async def find_key(self, url: str) -> rsa.RSAPublicKey:
        """Return the key; `UntrustedCertificateError`, or `UnavailableError` if it is not to be had now."""
        ...


class SignatureJudge(Protocol):
    """Asks PayPal itself."""

    async def confirms(self, content: bytes) -> bool:
        """Tell whether PayPal calls the signature good; `UnavailableError` if it does not answer."""
        ...


@dataclass(frozen=True, slots=True)
class CaptureAnswer:
    """What came of asking for an order's money. `capture_id` is PayPal's, None if nothing was captured."""

    outcome: Outcome
    capture_id: str | None = None


class OrderCapturer(Protocol):
    """Takes the money of an order that its payer has approved."""

    async def capture(self, payment: Payment) -> CaptureAnswer:
        """Capture the payment's order, once, however often it is asked; raises `UnknownOutcomeError`."""
        ...


@dataclass(frozen=True, slots=True)
class DueCapture:
    """An approved payment whose money is to be asked for now; `asked` counts the calls so far."""

    payment: Payment
    asked: int


class CaptureStore(Protocol):
    """Which approved payments were asked for, and what came of it."""

    async def due_captures(self, now: datetime, limit: int) -> Sequence[DueCapture]:
        """Return approved payments to capture, those not asked for first, the most overdue next; unlocked."""
        ...

    async def claim_capture(self, due: DueCapture, now: datetime, next_at: datetime) -> bool:
        """Write down that it is asked for, before it is; False if somebody else did so or it is not approved now."""
        ...

    async def note_captured(self, payment_id: str, capture_id: str, now: datetime) -> None:
        """Write down the capture: from now on nobody asks again."""
        ...
