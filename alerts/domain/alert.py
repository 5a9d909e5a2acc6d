"""An alert as people read it, whatever it is about. Slack, e-mail and webhooks lay it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AlertKind = Literal["quota", "spend", "anomaly"]
KINDS: tuple[AlertKind, ...] = ("quota", "spend", "anomaly")


@dataclass(frozen=True, slots=True)
class Gauge:
    """How full something is, drawn and in percent."""

    bar: str
    percent: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Ready to be shown: names without control characters, figures with thousands separated.

    `headline` says it in one line, `summary` is the figure behind it, `rows` are the details, `explanation` says why or
    what happens next under its title, `happened` is when.
    """

    alert_id: str
    kind: AlertKind
    tenant: str
    meter: str | None
    period: str
    headline: str
    summary: str
    rows: tuple[tuple[str, str], ...]
    explanation_title: str
    explanation: str
    happened: str
    is_severe: bool
    gauge: Gauge | None = None

    @property
    def one_line(self) -> str:
        """All of it where there is room for one line only: notifications, screen readers, logs."""
        return f"{self.headline}: {self.summary}"
