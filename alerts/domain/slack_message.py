"""The Slack message of an alert. Source: Slack's pages "Block Kit" and "Formatting text for app surfaces"."""

from __future__ import annotations

from typing import Any

from alerts.domain.quota_alert import QuotaAlert

_HEADER_LENGTH_MAX = 150


def build_slack_message(alert: QuotaAlert) -> dict[str, Any]:
    """Return the payload for an incoming webhook; `text` is what notifications and screen readers show."""
    icon = ":red_circle:" if alert.is_exhausted else ":large_yellow_circle:"
    usage = f"{alert.used} of {alert.limit} {alert.unit}"
    return {
        "text": _escape(f"{alert.headline}: {usage} ({alert.percent}) in {alert.period}"),
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": f"{icon} {alert.headline}"[:_HEADER_LENGTH_MAX], "emoji": True},
            },
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": f"`{alert.bar}`  *{alert.percent}*\n{_escape(usage)}"},
            },
            {
                "type": "section",
                "fields": [
                    _field("Tenant", alert.tenant),
                    _field("Meter", alert.meter),
                    _field("Period", alert.period),
                    _field("Remaining", f"{alert.remaining} {alert.unit}"),
                ],
            },
            {"type": "section", "text": {"type": "mrkdwn", "text": f"*What happens next*\n{_escape(alert.next_step)}"}},
            {
                "type": "context",
                "elements": [
                    {"type": "mrkdwn", "text": _escape(f"Crossed at {alert.crossed_at} · {alert.alert_id}")},
                ],
            },
        ],
    }


def _field(name: str, value: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": f"*{name}*\n{_escape(value)}"}


def _escape(text: str) -> str:
    """Escape Slack's three control characters, so that a tenant's name cannot mention a channel or make a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
