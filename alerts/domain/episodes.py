"""Stretches of unusual usage. Owns when one begins, which is told once, and when it has ended, which re-arms it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from alerts.domain.anomaly import Anomaly, AnomalyKind
from core.period import Period

# A level that comes and goes is one episode: it has ended when so many windows in a row were as usual.
CALM_WINDOWS = 6


@dataclass(frozen=True, slots=True)
class Episode:
    """One stretch; `started_at` is the start of its first window, `last_seen_at` the end of its last unusual one."""

    kind: AnomalyKind
    started_at: datetime
    last_seen_at: datetime
    calm_windows: int = 0
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """What a window did: the episodes that changed, ended ones among them, and the one it began, if any."""

    changed: tuple[Episode, ...]
    begun: Episode | None = None


def follow(going_on: Sequence[Episode], anomaly: Anomaly | None, *, heard: bool, window: Period) -> Followed:
    """Take over the judgement of a window; `heard` says whether there was any usage in it.

    Silence ends with the first usage; jumps and drops when `CALM_WINDOWS` in a row were as usual. Windows without usage
    say nothing about the end of a drop.
    """
    changed = [after for one in going_on if (after := _follow_one(one, anomaly, heard, window)) != one]
    if anomaly is None or any(one.kind == anomaly.kind for one in going_on):
        return Followed(tuple(changed))
    before = (anomaly.windows - 1) * (window.end - window.start)
    begun = Episode(anomaly.kind, window.start - before, window.end)
    return Followed((*changed, begun), begun)


def _follow_one(episode: Episode, anomaly: Anomaly | None, heard: bool, window: Period) -> Episode:
    if anomaly is not None and anomaly.kind == episode.kind:
        return replace(episode, last_seen_at=window.end, calm_windows=0)
    if episode.kind == "silence":
        return replace(episode, ended_at=window.start) if heard else episode
    if episode.kind == "drop" and not heard:
        return episode
    calm = episode.calm_windows + 1
    return replace(episode, calm_windows=calm, ended_at=window.end if calm >= CALM_WINDOWS else None)
