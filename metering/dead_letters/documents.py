"""Letters as JSON documents, the same for the API and `--json`: instants ISO 8601, places `topic/partition/offset`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from core.period import format_instant
from metering.dead_letters.discard_letters import Discarded
from metering.dead_letters.domain.letter import Action, FoundLetter, Letter, LetterHead, head_of, state_of
from metering.dead_letters.list_letters import LetterPage
from metering.dead_letters.ports import CodeCount
from metering.dead_letters.replay_letters import Replayed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def page_document(page: LetterPage) -> dict[str, Any]:
    """Return a page; `next_cursor` is null on the last one."""
    return {
        "data": [found_document(letter) for letter in page.letters],
        "next_cursor": page.cursor,
        "looked_at": page.looked_at,
    }


def found_document(found: FoundLetter) -> dict[str, Any]:
    """Return a listed letter."""
    return {
        **_head_document(found.head),
        "state": found.state,
        "actions": [_action(action) for action in found.actions],
    }


def letter_document(letter: Letter, actions: tuple[Action, ...]) -> dict[str, Any]:
    """Return a letter with its body: as text if it is UTF-8, in any case as hexadecimal digits if it is not."""
    body = letter.body
    text, digits = None, None
    if body is not None:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            digits = body.hex()
    return {
        **_head_document(head_of(letter)),
        "state": state_of(actions),
        "actions": [_action(action) for action in actions],
        "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
        "headers": [[name, (raw or b"").decode(errors="backslashreplace")] for name, raw in letter.headers],
        "sha256": letter.digest,
        "body_text": text,
        "body_hex": digits,
    }


def replayed_document(result: Replayed) -> dict[str, Any]:
    """Return how a letter fared."""
    return {
        "letter": str(result.place),
        "outcome": result.outcome,
        "code": result.code or None,
        "reason": result.reason or None,
        "sent": None if result.sent is None else str(result.sent),
    }


def discarded_document(result: Discarded) -> dict[str, Any]:
    """Return how a letter fared."""
    return {
        "letter": str(result.place),
        "outcome": result.outcome,
        "code": result.code or None,
        "reason": result.reason or None,
    }


def count_document(count: CodeCount) -> dict[str, Any]:
    """Return a count."""
    return {"topic": count.topic, "code": count.code, "open": count.open, "letters": count.letters}


def instant_text(at_ms: int) -> str:
    """Return milliseconds since 1970 UTC as ISO 8601."""
    return format_instant(_EPOCH + timedelta(milliseconds=at_ms))


def _head_document(head: LetterHead) -> dict[str, Any]:
    return {
        "letter": str(head.place),
        "topic": head.place.topic,
        "partition": head.place.partition,
        "offset": head.place.offset,
        "put_aside_at": instant_text(head.at_ms),
        "code": head.code,
        "reason": head.reason,
        "tenant_id": head.tenant,
        "bytes": head.size,
        "is_cut": head.is_cut,
        "origin": {
            "topic": head.origin.topic,
            "partition": head.origin.partition,
            "offset": head.origin.offset,
            "index": head.index,
            "received_at": instant_text(head.received_ms),
        },
    }


def _action(action: Action) -> dict[str, Any]:
    return {
        "kind": action.kind,
        "by": action.actor,
        "reason": action.reason,
        "begun_at": format_instant(action.begun_at),
        "done_at": None if action.done_at is None else format_instant(action.done_at),
        "letter_sha256": action.letter_digest,
        "sent_sha256": action.sent_digest,
        "sent": None if action.sent is None else str(action.sent),
    }
