"""Identities made from causes, so that doing a thing twice names the same thing (idempotent by name)."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NewType

TenantId = NewType("TenantId", str)
MeterId = NewType("MeterId", str)

# What may stand in a topic key, a Redis key, a path and a URL without quoting.
TENANT_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SEPARATOR = "\x1f"


def derive_id(prefix: str, *cause: str) -> str:
    """Return `prefix_` + 26 characters that depend only on `cause`: the same cause always gives the same id.

    128 bits of SHA-256 over the parts joined by the ASCII unit separator, in Crockford-like lower-case base 32.
    """
    digest = hashlib.sha256(_SEPARATOR.join(cause).encode()).digest()[:16]
    return f"{prefix}_{base64.b32encode(digest).decode().rstrip('=').lower()}"
