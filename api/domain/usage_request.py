"""A usage request's body. Owns its form and what of it goes to the broker; judging is the stream's own rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from api.domain.plain_usage import point_back, to_cloud_event
from core.meters import Registry
from core.usage_event import IngestLimits, Rejection, parse_event

_PLAIN_MARKS = (b'"tenant_id"', b'"metric_type"')


@dataclass(frozen=True, slots=True)
class ReadyEvent:
    """An event the stream will accept: its id, the tenant (the record's key) and the bytes for the broker."""

    event_id: str
    tenant: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Judge:
    """What events of one request are judged by; `received_us` is microseconds since 1970 UTC."""

    registry: Registry
    limits: IngestLimits
    received_us: int

    def read(self, raw: bytes, *, plain_allowed: bool, make_id: Callable[[], str]) -> ReadyEvent | Rejection:
        """Judge one event; `make_id` names a plain one that brings no id."""
        if plain_allowed and _looks_plain(raw):
            # Checked before the form is mapped: what is too large as sent stays too large.
            if len(raw) > self.limits.max_bytes:
                return Rejection("too_large", f"the event has {len(raw)} bytes, {self.limits.max_bytes} are allowed")
            mapped = to_cloud_event(raw, self.registry, make_id())
            if isinstance(mapped, Rejection):
                return mapped
            judged = parse_event(mapped, self.registry, self.limits, self.received_us)
            if isinstance(judged, Rejection):
                return point_back(judged)
            return ReadyEvent(judged.id, judged.tenant, mapped)
        judged = parse_event(raw, self.registry, self.limits, self.received_us)
        if isinstance(judged, Rejection):
            return judged
        return ReadyEvent(judged.id, judged.tenant, raw)


def _looks_plain(raw: bytes) -> bool:
    return b'"specversion"' not in raw and any(mark in raw for mark in _PLAIN_MARKS)


class _Named(msgspec.Struct):
    id: str


def read_id(raw: bytes) -> str | None:
    """Return the id of an event that was refused, if it can be read, so that its sender finds it again."""
    try:
        found = msgspec.json.decode(raw, type=_Named).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found[:256]
