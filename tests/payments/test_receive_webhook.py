"""Webhooks in: only what the provider signed now is kept, byte for byte, once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from core.clock import ManualClock
from core.errors import UnavailableError
from payments.ports import StoredWebhook
from payments.receive_webhook import InvalidSignatureError, receive_webhook
from tests.standins.stripe_webhooks import sign

NOW = datetime(2026, 11, 2, 8, 30, tzinfo=UTC)
AT = int(NOW.timestamp())
SECRET, OLD_SECRET = "whsec_new", "whsec_old"
BODY = json.dumps({"id": "evt_1", "type": "payment_intent.succeeded", "data": {}}, indent=2).encode()


class MemoryInbox:
    def __init__(self) -> None:
        self.kept: dict[str, StoredWebhook] = {}

    async def add(self, webhook: StoredWebhook, received_at: datetime) -> bool:
        is_new = webhook.event_id not in self.kept
        self.kept.setdefault(webhook.event_id, webhook)
        return is_new


async def receive(inbox: MemoryInbox, body: bytes, signature: str | None) -> bool:
    return await receive_webhook(body, signature, secrets=[SECRET, OLD_SECRET], inbox=inbox, clock=ManualClock(NOW))


async def test_a_signed_event_is_kept_once_byte_for_byte() -> None:
    inbox = MemoryInbox()
    assert await receive(inbox, BODY, sign(BODY, SECRET, AT))
    assert not await receive(inbox, BODY, sign(BODY, SECRET, AT + 60))
    assert inbox.kept == {"evt_1": StoredWebhook("stripe", "evt_1", "payment_intent.succeeded", BODY)}


async def test_each_secret_of_a_rotation_works() -> None:
    inbox = MemoryInbox()
    assert await receive(inbox, BODY, sign(BODY, OLD_SECRET, AT))
    both = f"{sign(BODY, 'whsec_other', AT)},{sign(BODY, SECRET, AT).partition(',')[2]}"
    assert await receive(inbox, BODY, both) is False


@pytest.mark.parametrize("offset", [-300, 300])
async def test_the_tolerance_is_five_minutes_both_ways(offset: int) -> None:
    assert await receive(MemoryInbox(), BODY, sign(BODY, SECRET, AT + offset))


SIGNED_AT_ZERO = sign(BODY, SECRET, AT)


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (BODY, None),
        (BODY, ""),
        (BODY, "nonsense"),
        (BODY, f"t={AT}"),
        (BODY, f"t={AT},v1="),
        (BODY, f"t={AT},v1=00"),
        (BODY, sign(BODY, "whsec_forged", AT)),
        (BODY, sign(BODY, SECRET, AT).replace("v1=", "v0=")),
        (BODY, sign(BODY, SECRET, AT - 301)),
        (BODY, sign(BODY, SECRET, AT + 301)),
        (BODY, sign(BODY, SECRET, AT + 86_400)),
        (BODY, sign(BODY, SECRET, AT - 301).replace(f"t={AT - 301}", f"t={AT}")),
        (BODY, f"t={AT}," + sign(BODY, SECRET, AT + 86_400)),
        (BODY, f"t={'9' * 5_000},v1=00"),
        (BODY, f"t=²,v1={'0' * 64}"),
        (BODY + b" ", SIGNED_AT_ZERO),
        (json.dumps(json.loads(BODY)).encode(), SIGNED_AT_ZERO),
        (b"\xff\xfe", sign(b"\xff\xfe", SECRET, AT)),
    ],
)
async def test_anything_else_is_refused_and_leaves_no_trace(body: bytes, signature: str | None) -> None:
    inbox = MemoryInbox()
    with pytest.raises(InvalidSignatureError):
        await receive(inbox, body, signature)
    assert inbox.kept == {}


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"type": "x"}',
        b'{"id": 5, "type": "x"}',
        b'{"id": "evt\\u0000", "type": "x"}',
        b'{"id": "../../etc", "type": "x"}',
        b"[" * 100_000,
    ],
)
async def test_signed_bytes_without_a_usable_id_are_kept_under_their_digest(body: bytes) -> None:
    inbox = MemoryInbox()
    assert await receive(inbox, body, sign(body, SECRET, AT))
    assert not await receive(inbox, body, sign(body, SECRET, AT))
    [webhook] = inbox.kept.values()
    assert webhook.event_id.startswith("unnamed_")
    assert webhook.body == body


async def test_without_a_secret_the_provider_is_asked_to_come_again() -> None:
    clock = ManualClock(NOW + timedelta(seconds=1))
    with pytest.raises(UnavailableError):
        await receive_webhook(BODY, sign(BODY, SECRET, AT), secrets=[], inbox=MemoryInbox(), clock=clock)
