"""Outgoing webhooks: signed as the standard's own library expects, retried by schedule, never into our own network."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from core.clock import ManualClock, SystemClock
from core.errors import BrokenInvariantError, InvalidInputError, NotFoundError
from runtime.postgres import Pool
from runtime.settings import Settings
from runtime.webhooks_out.address_guard import (
    GuardedNetwork,
    OutgoingPolicy,
    RefusedAddressError,
    check_url,
    is_public,
    resolve,
)
from runtime.webhooks_out.endpoints import (
    ROTATION,
    EndpointWish,
    check_endpoint,
    list_endpoints,
    put_endpoint,
    rotate_secret,
)
from runtime.webhooks_out.queue import enqueue, resend
from runtime.webhooks_out.schedule import PAUSES, Attempt, plan_next
from runtime.webhooks_out.send import WebhookSender
from runtime.webhooks_out.signing import make_secret, signed_headers
from runtime.webhooks_out.worker import outgoing_policy, run, send_next
from tests.standins.webhook_receiver import WebhookReceiver

PUBLIC, ANYWHERE = OutgoingPolicy(), OutgoingPolicy(allow_private=True)
NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)

# Signatures


@given(body=st.text().map(str.encode), message=st.from_regex(r"[a-z0-9_]{1,40}", fullmatch=True))
def test_the_standards_own_library_accepts_what_we_sign(body: bytes, message: str) -> None:
    secret, other = make_secret(os.urandom(32)), make_secret(os.urandom(32))
    headers = signed_headers(message, body, secrets=[secret], now=datetime.now(UTC))
    Webhook(secret).verify(body, headers, json_parse=False)
    for changed, verifier in ((body + b"x", secret), (body, other)):
        with pytest.raises(WebhookVerificationError):
            Webhook(verifier).verify(changed, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, {**headers, "webhook-id": message + "x"}, json_parse=False)


def test_while_a_secret_rotates_both_verify() -> None:
    old, new = make_secret(b"a" * 32), make_secret(b"b" * 32)
    headers = signed_headers("msg_1", b"{}", secrets=[new, old], now=datetime.now(UTC))
    assert [part[:3] for part in headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]
    for secret in (old, new):
        Webhook(secret).verify(b"{}", headers)


def test_a_secret_has_the_standards_form() -> None:
    secret = make_secret(b"\xff" * 32)
    assert secret.startswith("whsec_")
    assert base64.b64decode(secret[6:]) == b"\xff" * 32


# Schedule


def test_ten_tries_within_seventy_six_hours() -> None:
    now, tries = NOW, 1
    while (plan := plan_next(Attempt(503, "answered 503"), attempts=tries, now=now)).status == "pending":
        now, tries = plan.next_attempt_at, tries + 1
    assert (plan.status, tries) == ("refused", 10)
    assert now - NOW == sum(PAUSES, timedelta(0))
    assert timedelta(hours=75) < now - NOW < timedelta(hours=76)


def test_what_ends_a_delivery_and_what_does_not() -> None:
    assert plan_next(Attempt(204), attempts=3, now=NOW).status == "sent"
    assert plan_next(Attempt(410, "answered 410"), attempts=10, now=NOW).status == "pending"
    for status in (0, 301, 400, 404, 429, 500):
        assert plan_next(Attempt(status, "no"), attempts=1, now=NOW).next_attempt_at == NOW + timedelta(seconds=5)
    asked = Attempt(429, "answered 429", timedelta(seconds=90))
    assert plan_next(asked, attempts=1, now=NOW).next_attempt_at == NOW + timedelta(seconds=90)
    for_ever = Attempt(429, "answered 429", timedelta(days=400))
    assert plan_next(for_ever, attempts=1, now=NOW).next_attempt_at == NOW + timedelta(hours=1)


# Where webhooks may go

INSIDE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
    "224.0.0.1", "240.0.0.1", "192.88.99.1", "198.18.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::",
    "2001:0:7f00:1::", "2001:db8::1", "not an address", "",
]  # fmt: skip
OUTSIDE = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", INSIDE)
def test_inner_addresses_are_refused_in_every_form(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_no_better_than_itself(address: ipaddress.IPv4Address) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    packed = int(address)
    for network in (f"64:ff9b::{packed >> 16:x}:{packed & 0xFFFF:x}", f"2002:{packed >> 16:x}:{packed & 0xFFFF:x}::"):
        assert not is_public(network)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "localhost", "[::1]", "[::ffff:7f00:1]"]
)
async def test_odd_forms_of_our_own_address_lead_nowhere(host: str) -> None:
    with pytest.raises((RefusedAddressError, OSError)):
        await resolve(host.strip("[]"), 443, PUBLIC)
    attempt = await WebhookSender(PUBLIC, SystemClock(), timeout_seconds=3).send(
        f"https://{host}/", "msg_1", b"{}", [make_secret(b"a" * 32)]
    )
    assert attempt.status == 0
    assert "public" in attempt.error


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "https://", "https:///path", "https://example.com:8080/",
        "https://user:secret@example.com/", "https://example.com/#x", "https://exa mple.com/", "https://example.com\\@evil/",
        "https://127.0.0.1/", "https://0x7f.1/", "https://2130706433/", "https://[::1]/", "https://10.1.2.3/",
        "https://example.com:99999/", "https://exämple.com/", "javascript:alert(1)", "", "https://a/" + "x" * 2_000,
    ],
)  # fmt: skip
def test_urls_that_may_not_be_called_are_refused(url: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_url(url, PUBLIC)
    assert {fault.code for fault in refused.value.faults} <= {"invalid_url", "refused_url"}


def test_ordinary_urls_are_taken() -> None:
    for url in ("https://example.com/hook?x=1", "https://example.com:443/", "https://hooks.example.com"):
        check_url(url, PUBLIC)
    check_url("http://10.0.0.1:8080/hook", ANYWHERE)


async def test_one_inner_address_among_several_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("93.184.216.34", port)), (2, 1, 6, "", ("10.0.0.7", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    with pytest.raises(RefusedAddressError):
        await resolve("rebinding.example", 443, PUBLIC)
    assert await resolve("rebinding.example", 443, ANYWHERE) == ["93.184.216.34", "10.0.0.7"]


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, connected = [], []

    async def answer(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("93.184.216.34", port))]

    async def connect(self: Any, host: str, port: int, *rest: Any, **named: Any) -> str:
        connected.append((host, port))
        return "stream"

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    monkeypatch.setattr("httpcore2.AnyIOBackend.connect_tcp", connect)
    await GuardedNetwork(PUBLIC).connect_tcp("hooks.example", 443)
    assert (asked, connected) == (["hooks.example"], [("93.184.216.34", 443)])


@pytest.mark.parametrize(
    ("given_", "code"),
    [
        ({"url": "https://x.example", "colour": "red"}, "unknown_field"),
        ({"url": 7}, "invalid_type"),
        ({"url": "http://x.example"}, "refused_url"),
        ({"url": "https://x.example", "tenant_id": "a/b"}, "invalid_tenant"),
        ({"url": "https://x.example", "event_types": ["alert.nothing"]}, "unknown_event_type"),
        ({"url": "https://x.example", "enabled": "yes"}, "invalid_type"),
    ],
)
def test_an_endpoint_that_makes_no_sense_is_refused(given_: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_endpoint("hook", given_, PUBLIC)
    assert [fault.code for fault in refused.value.faults] == [code]
    with pytest.raises(InvalidInputError):
        check_endpoint("Hook 1", {"url": "https://x.example"}, PUBLIC)


# Over real HTTP and PostgreSQL


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


class Post:
    """Announces and sends by a clock that moves only when told to, near the present: receivers check the time."""

    def __init__(self, pool: Pool, receiver: WebhookReceiver) -> None:
        self.pool, self.receiver, self.clock = pool, receiver, ManualClock(datetime.now(UTC))
        self.sender = WebhookSender(ANYWHERE, self.clock, timeout_seconds=0.5)

    async def endpoint(self, endpoint_id: str = "hook", **changes: Any) -> str | None:
        wish = EndpointWish(endpoint_id, **{"url": self.receiver.url, **changes})
        async with self.pool.connection() as connection:
            secret = await put_endpoint(connection, wish, random_bytes=os.urandom, now=self.clock.now())
        if secret is not None:
            self.receiver.secrets.append(secret)
        return secret

    async def announce(self, message_id: str | None = None, tenant_id: str = "acme", **data: Any) -> int:
        async with self.pool.connection() as connection:
            return await enqueue(
                connection,
                message_id=message_id or f"alert_{uuid4().hex}",
                event_type="alert.triggered",
                tenant_id=tenant_id,
                data=data,
                occurred_at=self.clock.now(),
                now=self.clock.now(),
            )

    async def send_all(self) -> int:
        """Send everything due now; returns how many tries that took."""
        tries = 0
        while await send_next(self.pool, self.sender, self.clock):
            tries += 1
        return tries

    async def rows(self) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (await connection.execute("SELECT * FROM webhook_deliveries ORDER BY message_id")).fetchall()


@pytest.fixture
async def post(pool: Pool, receiver: WebhookReceiver) -> Post:
    return Post(pool, receiver)


@pytest.mark.integration
async def test_a_message_arrives_signed_and_once_however_often_it_is_announced(post: Post) -> None:
    await post.endpoint()
    assert await post.announce("alert_1", headline="acme has used 80 %") == 1
    assert await post.announce("alert_1", headline="acme has used 80 %") == 0
    assert await post.send_all() == 1
    assert await post.announce("alert_1") == 0
    assert await post.send_all() == 0
    [taken] = post.receiver.received
    assert taken.message_id == "alert_1"
    assert set(taken.event) == {"type", "timestamp", "data"}
    assert (taken.event["type"], taken.event["data"]) == ("alert.triggered", {"headline": "acme has used 80 %"})
    [row] = await post.rows()
    assert (row["status"], row["attempts"], row["last_error"]) == ("sent", 1, None)


@pytest.mark.integration
async def test_endpoints_get_the_tenants_and_types_they_asked_for(post: Post) -> None:
    async with post.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES ('hooked', 'H', 'h@h.invalid', 'US', 'USD', now()) ON CONFLICT DO NOTHING"
        )
    await post.endpoint("everyone")
    await post.endpoint("hooked", tenant_id="hooked", event_types=("alert.triggered",))
    await post.endpoint("off", enabled=False)
    assert await post.announce(tenant_id="acme") == 1
    assert await post.announce(tenant_id="hooked") == 2
    with pytest.raises(NotFoundError):
        await post.endpoint("nobody", tenant_id="nobody-there")


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["server_error", "refuse", "slow", "cut_before", "redirect"])
async def test_a_receiver_in_trouble_gets_it_later_with_the_same_id(kind: str, post: Post) -> None:
    await post.endpoint()
    await post.announce("alert_1")
    post.receiver.faults.add({"kind": kind, "count": 2, "seconds": 20})
    assert await post.send_all() == 1
    post.clock.advance(timedelta(seconds=4))
    assert await post.send_all() == 0
    post.clock.advance(timedelta(seconds=1))
    assert await post.send_all() == 1
    [row] = await post.rows()
    assert (row["status"], row["attempts"]) == ("pending", 2)
    assert row["last_error"]
    post.clock.advance(timedelta(minutes=4))
    assert await post.send_all() == 0
    # Receivers refuse what claims to come from the future.
    async with post.pool.connection() as connection:
        await connection.execute("UPDATE webhook_deliveries SET next_attempt_at = %s", (datetime.now(UTC),))
        await connection.execute("UPDATE webhook_endpoints SET paused_until = NULL")
    post.clock.travel_to(datetime.now(UTC))
    assert await post.send_all() == 1
    assert post.receiver.message_ids == ["alert_1"]
    assert {headers["webhook-id"] for headers in post.receiver.requests} == {"alert_1"}
    assert post.receiver.elsewhere == 0


@pytest.mark.integration
async def test_a_repeat_after_a_lost_answer_has_the_same_id(post: Post) -> None:
    await post.endpoint()
    await post.announce("alert_1")
    post.receiver.faults.add({"kind": "cut_after"})
    await post.send_all()
    post.clock.advance(timedelta(seconds=5))
    await post.send_all()
    assert post.receiver.message_ids == ["alert_1", "alert_1"]
    assert [row["status"] for row in await post.rows()] == ["sent"]


@pytest.mark.integration
async def test_what_is_given_up_is_kept_with_its_reason_and_can_be_sent_again(post: Post) -> None:
    await post.endpoint()
    await post.announce("alert_1")
    post.receiver.faults.add({"kind": "refuse", "count": len(PAUSES)})
    begin = post.clock.now()
    tries = 0
    for pause in PAUSES:
        post.clock.advance(pause)
        tries += await post.send_all()
    assert tries == len(PAUSES)
    [row] = await post.rows()
    assert (row["status"], row["last_error"]) == ("refused", "answered 400")
    post.clock.travel_to(begin + timedelta(days=30))
    assert await post.send_all() == 0
    post.clock.travel_to(datetime.now(UTC))
    async with post.pool.connection() as connection:
        await connection.execute("UPDATE webhook_endpoints SET paused_until = NULL")
        assert await resend(connection, "alert_unknown", post.clock.now()) == 0
        assert await resend(connection, None, post.clock.now()) == 1
    assert await post.send_all() == 1
    assert post.receiver.message_ids == ["alert_1"]


@pytest.mark.integration
async def test_a_receiver_that_is_gone_is_left_alone_and_nothing_is_lost(post: Post) -> None:
    await post.endpoint()
    await post.announce("alert_1")
    await post.announce("alert_2")
    post.receiver.faults.add({"kind": "gone"})
    assert await post.send_all() == 1
    async with post.pool.connection() as connection:
        [endpoint] = await list_endpoints(connection)
    assert (endpoint["enabled"], endpoint["disabled_reason"]) == (False, "the receiver answered 410 Gone")
    assert await post.announce("alert_3") == 0
    assert await post.endpoint() is None
    assert await post.send_all() == 2
    assert sorted(post.receiver.message_ids) == ["alert_1", "alert_2"]


@pytest.mark.integration
async def test_a_dead_endpoint_holds_nobody_else_up(post: Post) -> None:
    await post.endpoint("dead", url="http://127.0.0.1:9/hook")
    await post.endpoint("alive")
    for number in range(5):
        await post.announce(f"alert_{number}")
    # One try of the dead one, then it rests; all of the other's.
    assert await post.send_all() == 6
    assert sorted(post.receiver.message_ids) == [f"alert_{number}" for number in range(5)]


@pytest.mark.integration
async def test_retry_after_is_respected(post: Post) -> None:
    await post.endpoint()
    await post.announce("alert_1")
    post.receiver.faults.add({"kind": "rate_limit", "retry_after_seconds": 30})
    assert await post.send_all() == 1
    post.clock.advance(timedelta(seconds=29))
    assert await post.send_all() == 0
    post.clock.advance(timedelta(seconds=1))
    assert await post.send_all() == 1
    assert post.receiver.message_ids == ["alert_1"]


@pytest.mark.integration
async def test_an_endless_answer_is_not_read(post: Post) -> None:
    await post.endpoint()
    await post.announce("alert_1")
    post.receiver.faults.add({"kind": "endless"})
    assert await post.send_all() == 1
    assert [row["status"] for row in await post.rows()] == ["sent"]


@pytest.mark.integration
async def test_several_senders_at_once_send_each_message_once(post: Post) -> None:
    for number in range(3):
        await post.endpoint(f"hook-{number}")
    for number in range(8):
        await post.announce(f"alert_{number}")
    tries = await asyncio.gather(*(post.send_all() for _ in range(4)))
    while left := await post.send_all():
        tries = [*tries, left]
    assert sum(tries) == 24
    assert sorted(post.receiver.message_ids) == sorted(f"alert_{number}" for number in range(8) for _ in range(3))


@pytest.mark.integration
async def test_a_secret_rotates_without_a_message_that_cannot_be_verified(post: Post) -> None:
    old = await post.endpoint()
    assert old is not None
    async with post.pool.connection() as connection:
        new = await rotate_secret(connection, "hook", random_bytes=os.urandom, now=post.clock.now())
        with pytest.raises(NotFoundError):
            await rotate_secret(connection, "nothing", random_bytes=os.urandom, now=post.clock.now())
    for number, secret in enumerate((old, new)):
        post.receiver.secrets = [secret]
        await post.announce(f"alert_{number}")
        await post.send_all()
    assert [one.signatures for one in post.receiver.received] == [2, 2]
    async with post.pool.connection() as connection:
        await connection.execute(
            "UPDATE webhook_endpoints SET previous_secret_until = %s", (datetime.now(UTC) - ROTATION,)
        )
    await post.announce("alert_2")
    await post.send_all()
    assert post.receiver.received[-1].signatures == 1


@pytest.mark.integration
async def test_secrets_are_in_no_answer_and_in_no_text_of_an_object(
    post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = await post.endpoint()
    assert secret is not None
    await post.announce("alert_1")
    post.receiver.faults.add({"kind": "server_error"})
    await post.send_all()
    async with post.pool.connection() as connection:
        shown = repr(await list_endpoints(connection))
    said = capsys.readouterr()
    assert secret not in shown + said.out + said.err + repr(await post.rows())


@pytest.mark.integration
async def test_a_body_beyond_the_standards_size_is_our_own_mistake(post: Post) -> None:
    await post.endpoint()
    with pytest.raises(BrokenInvariantError):
        await post.announce("alert_1", text="x" * 21_000)
    assert await post.rows() == []


@pytest.mark.integration
async def test_the_worker_sends_where_the_settings_allow_it(post: Post, settings: Settings) -> None:
    await post.endpoint()
    await post.announce("alert_1")
    assert not outgoing_policy(settings).allow_private
    for allowed in (False, True):
        stop = asyncio.Event()
        worker = asyncio.create_task(run(settings.model_copy(update={"webhook_allow_private": allowed}), stop))
        try:
            async with asyncio.timeout(20):
                while not (row := (await post.rows())[0])["attempts"] or (allowed and row["status"] != "sent"):
                    assert not worker.done()
                    await asyncio.sleep(0.05)
        finally:
            stop.set()
            await worker
        if not allowed:
            assert row["status"] == "pending"
            assert post.receiver.requests == []
    assert post.receiver.message_ids == ["alert_1"]
