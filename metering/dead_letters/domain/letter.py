"""A dead letter as found on its topic. Owns its place, whose it seems to be, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

import msgspec

from core.dead_letter import DeadLetter
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN

State = Literal["open", "replayed", "discarded"]
Kind = Literal["replay", "discard"]
UNREADABLE = "unreadable_letter"
_OURS = "meterbook_"
# A body larger than this is not searched for its tenant: a page of letters must not cost a page of large documents.
_SEARCHED_BYTES = 4_000_000


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a record stands; of a letter it is its name."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of a dead-letter topic; `at_ms` is when it was put aside (ms since 1970 UTC), `index` its place in
    an array of events (-1: the whole record). `headers` are the source record's own, where they were kept.
    """

    place: Place
    at_ms: int
    code: str
    reason: str
    origin: Place
    index: int
    received_ms: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    body: bytes | None
    is_cut: bool

    @property
    def digest(self) -> str:
        """SHA-256 of the body; of a tombstone, that of nothing."""
        return digest_of(self.body)

    @property
    def tenant(self) -> str | None:
        """Whose it seems to be: by the body's word, else by the record's key; None if neither tells."""
        return tenant_of(self.body) or _tenant_of_key(self.key)


@dataclass(frozen=True, slots=True)
class LetterHead:
    """A letter without its body, for lists and filters; `size` is the body's bytes, None of a tombstone."""

    place: Place
    at_ms: int
    code: str
    reason: str
    origin: Place
    index: int
    received_ms: int
    tenant: str | None
    size: int | None
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Action:
    """What a person did about a letter. A replay is done when the broker has confirmed what was sent (`sent`)."""

    action_id: str
    place: Place
    kind: Kind
    code: str
    letter_at_ms: int
    actor: str
    reason: str
    letter_digest: str
    sent_digest: str | None
    sent: Place | None
    begun_at: datetime
    done_at: datetime | None


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A listed letter with what became of it: `actions` in the order they were begun."""

    head: LetterHead
    actions: tuple[Action, ...]

    @property
    def state(self) -> State:
        """What became of it."""
        return state_of(self.actions)


def state_of(actions: Sequence[Action]) -> State:
    """Return what the newest finished action says; a replay that never finished leaves the letter open."""
    finished = [action for action in actions if action.done_at is not None]
    if not finished:
        return "open"
    newest = max(finished, key=lambda action: (action.done_at, action.begun_at))
    return "replayed" if newest.kind == "replay" else "discarded"


def read_letter(
    place: Place, at_ms: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
) -> Letter:
    """Read a record of a dead-letter topic; one without our headers is a letter too, with code `unreadable_letter`."""
    kept = tuple((name, raw) for name, raw in headers if not name.startswith(_OURS))
    try:
        dead = DeadLetter.from_record(value, list(headers))
    except (KeyError, ValueError) as error:
        reason = f"the record's headers are not those of a dead letter: {error!r}"
        return Letter(place, at_ms, UNREADABLE, reason, place, -1, at_ms, key, kept, value, is_cut=False)
    origin = Place(dead.topic, dead.partition, dead.offset)
    return Letter(
        place, at_ms, dead.code, dead.reason, origin, dead.index, dead.received_ms, key, kept, value, dead.is_cut
    )


def head_of(letter: Letter) -> LetterHead:
    """Return the letter without its body."""
    return LetterHead(
        place=letter.place,
        at_ms=letter.at_ms,
        code=letter.code,
        reason=letter.reason,
        origin=letter.origin,
        index=letter.index,
        received_ms=letter.received_ms,
        tenant=letter.tenant,
        size=None if letter.body is None else len(letter.body),
        is_cut=letter.is_cut,
    )


def parse_place(text: str) -> Place:
    """Read `usage.rejected/2/1043`; raises `InvalidInputError` (`invalid_place`)."""
    topic, _, rest = text.strip().partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and _is_number(partition) and _is_number(offset)):
        expected = f"expected topic/partition/offset such as usage.rejected/2/1043, got {text[:80]!r}"
        raise InvalidInputError([Fault("invalid_place", expected, "letter")])
    return Place(topic, int(partition), int(offset))


def digest_of(body: bytes | None) -> str:
    """Return the SHA-256 of a body as hexadecimal digits."""
    return sha256(body or b"").hexdigest()


class _Usage(msgspec.Struct, gc=False):
    subject: str


class _Message(msgspec.Struct, gc=False):
    tenant_id: str


_readers: tuple[tuple[msgspec.json.Decoder[Any], Callable[[Any], list[str]]], ...] = (
    (msgspec.json.Decoder(_Usage), lambda found: [found.subject]),
    (msgspec.json.Decoder(_Message), lambda found: [found.tenant_id]),
    (msgspec.json.Decoder(list[_Usage]), lambda found: [event.subject for event in found]),
)


def tenant_of(body: bytes | None) -> str | None:
    """Return the one tenant a body names (as event, array of events or billing message), else None."""
    if not body or len(body) > _SEARCHED_BYTES:
        return None
    for reader, names in _readers:
        try:
            found = {name.partition("/")[0] for name in names(reader.decode(body))}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if len(found) == 1:
            tenant = found.pop()
            return tenant if TENANT_PATTERN.fullmatch(tenant) else None
    return None


def _tenant_of_key(key: bytes | None) -> str | None:
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        return None
    return text if TENANT_PATTERN.fullmatch(text) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
