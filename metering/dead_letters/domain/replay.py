"""What a replay of a letter sends, and when it must not be."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import Fault
from core.topics import ALL_TOPICS, USAGE_EVENTS
from metering.dead_letters.domain.letter import UNREADABLE, Letter, digest_of, tenant_of

_KNOWN = frozenset(topic.name for topic in ALL_TOPICS)


@dataclass(frozen=True, slots=True)
class Replay:
    """The record to send back; `partition` is set only where no key decides it."""

    topic: str
    partition: int | None
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of what is sent."""
        return digest_of(self.value)


def replay_of(letter: Letter, mended: bytes | None = None) -> Replay | Fault:
    """Return the record that brings a letter back to its source topic, `mended` in place of its body if given.

    The very bytes that were refused, under their own key and headers. A usage event goes under its tenant's key, so
    that it lands where the tenant's identities are known and counts once. Codes of refusals: `unreadable_letter`,
    `unknown_topic`, `body_incomplete` (it was cut to fit), `nothing_to_replay` (a tombstone).
    """
    path = str(letter.place)
    if letter.code == UNREADABLE:
        return Fault(UNREADABLE, "nobody knows where it came from", path)
    topic = letter.origin.topic
    if topic not in _KNOWN:
        return Fault("unknown_topic", f"there is no topic {topic[:80]!r} to send it to", path)
    if mended is None and letter.is_cut:
        reason = f"only a part of its body is kept; the whole stands on {letter.origin} while that is retained"
        return Fault("body_incomplete", reason, path)
    value = letter.body if mended is None else mended
    if value is None:
        return Fault("nothing_to_replay", "the refused record had no value", path)
    key = letter.key
    if topic == USAGE_EVENTS.name:
        tenant = tenant_of(value)
        key = letter.key if tenant is None else tenant.encode()
    return Replay(topic, letter.origin.partition if key is None else None, key, letter.headers, value)
