"""Slack's incoming webhook. Source: Slack's pages "Sending messages using incoming webhooks" and "Rate limits"."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2

from alerts.domain.alert import Alert
from alerts.domain.retry import Answer, Attempt
from alerts.domain.slack_message import build_slack_message
from core.clock import Clock

_TIMEOUT_SECONDS = 10.0
_LATER = frozenset({408, 425, 429})


class SlackChannel:
    """Posts to one incoming webhook; its URL is a secret and never logged."""

    name = "slack"

    def __init__(self, url: str, clock: Clock, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._url, self._clock = url, clock
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_seconds, connect=min(3.0, timeout_seconds)), follow_redirects=False
        )

    async def send(self, alert: Alert, claimed_at: datetime) -> Attempt:
        """Post the message once."""
        try:
            response = await self._client.post(self._url, json=build_slack_message(alert))
        except (httpx2.HTTPError, OSError) as error:
            return Attempt(Answer.UNAVAILABLE, f"no answer: {type(error).__name__}")
        except httpx2.InvalidURL:
            return Attempt(Answer.REFUSED, "the webhook's URL is not a URL")
        if response.status_code == 200:
            return Attempt(Answer.SENT)
        error_text = f"{response.status_code} {response.text[:200]}"
        if response.status_code >= 500 or response.status_code in _LATER:
            return Attempt(Answer.UNAVAILABLE, error_text, self._retry_after(response.headers.get("retry-after")))
        return Attempt(Answer.REFUSED, error_text)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _retry_after(self, value: str | None) -> timedelta | None:
        """Read `Retry-After`: seconds or a date (RFC 9110 §10.2.3)."""
        if value is None:
            return None
        if value.isascii() and value.isdigit() and len(value) < 9:
            return timedelta(seconds=int(value))
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        aware = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(aware - self._clock.now(), timedelta(0))
