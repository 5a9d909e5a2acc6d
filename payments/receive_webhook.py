"""Takes a provider's webhook in: verify the signature over the raw bytes, keep the bytes, answer at once.

Effects come later (`apply_webhook.py`), so that a slow store never makes the provider give up and send again.
Anything unverified leaves no trace but a counter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
from prometheus_client import Counter
from stripe import SignatureVerificationError, WebhookSignature

from core.clock import Clock
from core.errors import Fault, InvalidInputError, UnavailableError
from core.ids import derive_id
from payments.ports import StoredWebhook, WebhookInbox

STRIPE = "stripe"
# Stripe's own tolerance; its library bounds only the past, so a stolen body could be dated ahead and kept for later.
TOLERANCE_SECONDS = 300
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)
WEBHOOKS = Counter("meterbook_webhooks_received_total", "Webhooks by what became of them", ["provider", "outcome"])


class InvalidSignatureError(InvalidInputError):
    """The webhook's signature does not prove that the provider sent it now."""

    code = "invalid_signature"


class _Envelope(msgspec.Struct):
    id: str
    type: str


async def receive_webhook(
    body: bytes, signature: str | None, *, secrets: Sequence[str], inbox: WebhookInbox, clock: Clock
) -> bool:
    """Keep a signed Stripe webhook; False if it was kept before.

    Raises `InvalidSignatureError` (one answer for every cause, so that nothing can be learnt by trying) and
    `UnavailableError` when no secret is configured, so that Stripe sends it again later.
    """
    if not secrets:
        WEBHOOKS.labels(STRIPE, "not_configured").inc()
        raise UnavailableError("no webhook secret is configured")
    now = clock.now()
    if not _is_authentic(body, signature, secrets, now):
        WEBHOOKS.labels(STRIPE, "refused").inc()
        raise InvalidSignatureError([Fault("invalid_signature", "the Stripe-Signature header does not fit the body")])
    is_new = await inbox.add(_address(body), now)
    WEBHOOKS.labels(STRIPE, "kept" if is_new else "repeated").inc()
    return is_new


def _is_authentic(body: bytes, signature: str | None, secrets: Sequence[str], now: datetime) -> bool:
    signed_at = _signed_at(signature)
    if signed_at is None or abs(now.timestamp() - signed_at) > TOLERANCE_SECONDS:
        return False
    return any(_fits(body, signature, secret) for secret in secrets)


def _fits(body: bytes, signature: str | None, secret: str) -> bool:
    try:
        # The library's types want text, but it takes bytes: what was signed is the bytes, decoded or not.
        WebhookSignature.verify_header(body, signature, secret, tolerance=None)
    except (SignatureVerificationError, UnicodeDecodeError):
        return False
    return True


def _signed_at(signature: str | None) -> int | None:
    """Return the first `t=` of the header, which is the one the library verifies."""
    for part in (signature or "").split(","):
        name, _, value = part.partition("=")
        if name == "t":
            return int(value) if value.isascii() and value.isdigit() and len(value) <= 12 else None
    return None


def _address(body: bytes) -> StoredWebhook:
    """Name the webhook by its event id; signed bytes that have none are kept too, named by what they are."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        envelope = _Envelope("", "")
    digest = hashlib.sha256(body).hexdigest()
    event_id = envelope.id if _NAME.fullmatch(envelope.id) else derive_id("unnamed", digest)
    event_type = envelope.type if _NAME.fullmatch(envelope.type) else "unreadable"
    return StoredWebhook(STRIPE, event_id, event_type, body)
