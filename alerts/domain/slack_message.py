"""The Slack message of an alert. Source: Slack's pages "Block Kit" and "Formatting text for app surfaces"."""

from __future__ import annotations

from typing import Any

from alerts.domain.alert import Alert

_HEADER_LENGTH_MAX = 150
_ICONS = {"quota": ":large_yellow_circle:", "spend": ":moneybag:", "anomaly": ":mag:"}
_SEVERE_ICON = ":red_circle:"


def build_slack_message(alert: Alert) -> dict[str, Any]:
    """Return the payload for an incoming webhook; `text` is what notifications and screen readers show."""
    icon = _SEVERE_ICON if alert.is_severe else _ICONS[alert.kind]
    figures = _escape(alert.summary)
    if alert.gauge is not None:
        figures = f"`{alert.gauge.bar}`  *{alert.gauge.percent}*\n{figures}"
    return {
        "text": _escape(alert.one_line),
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": f"{icon} {alert.headline}"[:_HEADER_LENGTH_MAX], "emoji": True},
            },
            {"type": "section", "text": {"type": "mrkdwn", "text": figures}},
            {"type": "section", "fields": [_field(name, value) for name, value in alert.rows]},
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": f"*{_escape(alert.explanation_title)}*\n{_escape(alert.explanation)}",
                },
            },
            {
                "type": "context",
                "elements": [{"type": "mrkdwn", "text": _escape(f"{alert.happened} · {alert.alert_id}")}],
            },
        ],
    }


def _field(name: str, value: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": f"*{name}*\n{_escape(value)}"}


def _escape(text: str) -> str:
    """Escape Slack's three control characters, so that a tenant's name cannot mention a channel or make a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
