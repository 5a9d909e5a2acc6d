"""Claims an alert: written once with its deliveries, however often its cause is reported."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from alerts.domain.alert import AlertKind
from alerts.domain.describe import Cause, channels_of, decode_cause, describe, kind_of
from alerts.domain.webhook_event import build_webhook_data
from alerts.ports import Claim, DeliveryStore
from core.alert_rules import AlertRules
from core.clock import Clock
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN


async def claim_alert(
    raw: bytes | None,
    kind: AlertKind,
    *,
    channels: Collection[str],
    rules: AlertRules,
    store: DeliveryStore,
    clock: Clock,
) -> bool:
    """Claim the alert that a message causes on every channel the rules ask for; False if it was claimed before.

    Raises `InvalidInputError` for a record that no alert can be made of, before anything is claimed.
    """
    return await store.claim(prepare_claim(decode_cause(kind, raw), channels=channels, rules=rules), clock.now())


def prepare_claim(cause: Cause, *, channels: Collection[str], rules: AlertRules) -> Claim:
    """Return what is to be claimed: on those of the `channels` there are that the rules ask for, all by default."""
    if not TENANT_PATTERN.fullmatch(cause.tenant_id):
        raise InvalidInputError([Fault("invalid_tenant", f"no tenant id: {cause.tenant_id[:80]!r}", "tenant_id")])
    alert = describe(cause, rules)
    asked = channels_of(cause, rules)
    chosen = tuple(channel for channel in channels if not asked or channel in asked)
    data = build_webhook_data(alert, cause) if not asked or "webhook" in asked else None
    assert alert.kind == kind_of(cause)
    return Claim(alert, cause.tenant_id, msgspec.json.encode(cause), chosen, data)
