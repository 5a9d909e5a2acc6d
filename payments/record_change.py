"""Writes a payment's change together with its announcement, in the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from payments.domain.announcement import announce_change
from payments.domain.payment import Payment
from payments.ports import PaymentUnit


async def record_change(unit: PaymentUnit, before: Payment, after: Payment, now: datetime) -> None:
    """Store `after` and put what it announces into the outbox; nothing if it is `before`."""
    if after == before:
        return
    await unit.update_payment(after, now)
    announcement = announce_change(before.status, after, now)
    if announcement is not None:
        await unit.announce(announcement, now)
