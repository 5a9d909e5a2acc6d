"""Finalized invoices as they lie in the books, and how a person names one of their lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.errors import Fault, InvalidInputError
from core.period import Period
from invoicing.domain.lines import Line

_LENGTH_MAX = 1_000
_PLACE = re.compile(r"([A-Za-z0-9_-]{1,80})(?:/([0-9]{1,6}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class LineReference:
    """What a person asks for: an invoice by number or id, one of its lines by position, or an item by its key."""

    invoice: str | None = None
    position: int | None = None
    item_key: str | None = None

    def __str__(self) -> str:
        if self.item_key is not None:
            return self.item_key
        return f"{self.invoice}/{self.position}" if self.position is not None else str(self.invoice)


@dataclass(frozen=True, slots=True)
class StoredInvoice:
    """An invoice with its lines by position (the first is 1)."""

    invoice_id: str
    number: str
    tenant_id: str
    subscription_id: str
    period: Period
    sequence: int
    status: str
    currency: str
    subtotal: Decimal
    issued_at: datetime
    snapshot: Mapping[str, Any]
    snapshot_sha256: str
    lines: tuple[tuple[int, Line], ...]


@dataclass(frozen=True, slots=True)
class BilledShare:
    """What one invoice billed of an item."""

    item_key: str
    invoice_id: str
    number: str
    issued_at: datetime
    quantity: Decimal
    exact_amount: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan version as it lies in the books now, with the digest that was noted when it was stored."""

    plan_id: str
    version: int
    document: Mapping[str, Any]
    digest: str


def read_reference(text: str, *, whole: bool) -> LineReference:
    """Read `MB-2026-000123/4`, an item key, or with `whole` an invoice number; also an invoice's id for its number.

    Raises `InvalidInputError` (`invalid_line`).
    """
    if "|" in text and not whole and len(text) <= _LENGTH_MAX:
        return LineReference(item_key=text)
    found = _PLACE.fullmatch(text)
    if found and (found[2] is None) is whole:
        return LineReference(found[1], int(found[2]) if found[2] else None)
    if whole:
        reason = f"with --all expected an invoice number such as MB-2026-000123, got {text[:80]!r}"
    else:
        reason = (
            f"expected invoice number and position such as MB-2026-000123/4, or an item key, got {text[:80]!r};"
            " --all explains every line of an invoice"
        )
    raise InvalidInputError([Fault("invalid_line", reason, "LINE")])
