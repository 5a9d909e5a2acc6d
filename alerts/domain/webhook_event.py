"""What an outgoing webhook `alert.triggered` says: the words people read, and the figures for programs."""

from __future__ import annotations

from typing import Any

import msgspec

from alerts.domain.alert import Alert
from alerts.domain.describe import Cause

EVENT_TYPE = "alert.triggered"


def build_webhook_data(alert: Alert, cause: Cause) -> dict[str, Any]:
    """Return the event's `data`: `details` is the message behind the alert, with amounts as decimal strings."""
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "tenant_id": alert.tenant,
        "meter": alert.meter,
        "period": alert.period,
        "headline": alert.headline,
        "summary": alert.summary,
        "explanation": alert.explanation,
        "details": msgspec.to_builtins(cause),
    }
