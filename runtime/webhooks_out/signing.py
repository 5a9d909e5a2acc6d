"""Signatures of outgoing webhooks. Source: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers"."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

SECRET_PREFIX = "whsec_"  # noqa: S105 - how every secret begins, not a secret
# The standard asks for 24 to 64 bytes.
SECRET_BYTES = 32


def make_secret(randomness: bytes) -> str:
    """Return a symmetric secret in the standard's form; `randomness` is `SECRET_BYTES` from the system's source."""
    assert len(randomness) == SECRET_BYTES
    return SECRET_PREFIX + base64.b64encode(randomness).decode()


def signed_headers(message_id: str, body: bytes, *, secrets: Sequence[str], now: datetime) -> dict[str, str]:
    """Return the headers of one try; with two secrets, while one rotates, two signatures a blank apart.

    The time is that of the try, so that receivers can refuse replays of what they got long ago.
    """
    assert "." not in message_id
    assert secrets
    timestamp = str(int(now.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_sign(secret, signed) for secret in secrets),
    }


def _sign(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
