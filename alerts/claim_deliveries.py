"""Claims the deliveries of a crossed quota: one per alert and channel, however often the crossing is reported."""

from __future__ import annotations

from collections.abc import Sequence

from alerts.domain.quota_alert import describe_crossing
from alerts.ports import DeliveryStore
from core.clock import Clock
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN
from core.messages import QuotaCrossed, decode_message, encode_message


async def claim_deliveries(raw: bytes | None, *, channels: Sequence[str], store: DeliveryStore, clock: Clock) -> int:
    """Claim the alert on every configured channel; returns how many claims are new.

    Raises `InvalidInputError` for a record that no message can be made of, before anything is claimed.
    """
    crossing = decode_message(raw, QuotaCrossed)
    if not TENANT_PATTERN.fullmatch(crossing.tenant_id):
        raise InvalidInputError([Fault("invalid_tenant", f"no tenant id: {crossing.tenant_id[:80]!r}", "tenant_id")])
    describe_crossing(crossing, ())
    return await store.claim(crossing.alert_id, crossing.tenant_id, channels, encode_message(crossing), clock.now())
