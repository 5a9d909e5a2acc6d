"""PayPal webhooks in: only what PayPal signed for us now is kept, byte for byte, once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from core.clock import ManualClock
from core.errors import UnavailableError
from payments.adapters.paypal_certificates import PayPalCertificates, is_allowed_address
from payments.adapters.paypal_provider import PayPalProvider
from payments.receive_paypal_webhook import receive_paypal_webhook
from payments.receive_webhook import InvalidSignatureError
from runtime.settings import Settings
from tests.payments.paypal.conftest import MemoryInbox
from tests.standins.paypal_server import WEBHOOK_ID, PayPalStandIn
from tests.standins.paypal_signing import Authority, Signer, self_signed
from tests.standins.paypal_webhooks import WebhookSettings, encode_event, headers_of

EVENT = {"id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": {"note": "günstig"}}
BODY = encode_event(EVENT)


class Gate:
    """The receiving side, with its clock, and a hand that signs."""

    def __init__(self, paypal: PayPalStandIn, provider: PayPalProvider, authority: Authority) -> None:
        self.paypal, self.provider, self.authority = paypal, provider, authority
        self.clock = ManualClock(datetime.now(UTC))
        self.inbox = MemoryInbox()
        self.keys = PayPalCertificates([paypal.cert_prefix], [authority.root], self.clock)

    def headers(self, body: bytes = BODY, signer: Signer | None = None, **changes: object) -> dict[str, str]:
        at = self.clock.now().timestamp() + float(str(changes.pop("offset", 0)))
        settings = WebhookSettings(
            str(changes.pop("webhook_id", WEBHOOK_ID)),
            str(changes.pop("cert_url", f"{self.paypal.cert_prefix}CERT-standin")),
        )
        found = headers_of(body, signer or self.paypal.signer, settings, at)
        return {name.lower(): value for name, value in found.items()} | {k: str(v) for k, v in changes.items()}

    async def take(self, headers: dict[str, str], body: bytes = BODY, ids: tuple[str, ...] = (WEBHOOK_ID,)) -> bool:
        return await receive_paypal_webhook(
            body, headers, webhook_ids=ids, keys=self.keys, judge=self.provider, inbox=self.inbox, clock=self.clock
        )

    def publish(self, name: str, signer: Signer) -> str:
        self.paypal.certificates[name] = signer.pem
        return f"{self.paypal.cert_prefix}{name}"

    def asked(self, what: str) -> int:
        return sum(entry.path.endswith(what) for entry in self.paypal.log)


@pytest.fixture
async def gate(paypal: PayPalStandIn, provider: PayPalProvider, authority: Authority) -> AsyncIterator[Gate]:
    gate = Gate(paypal, provider, authority)
    yield gate
    await gate.keys.close()


async def test_a_signed_event_is_kept_once_byte_for_byte(gate: Gate) -> None:
    assert await gate.take(gate.headers())
    assert not await gate.take(gate.headers())
    [webhook] = gate.inbox.kept.values()
    assert (webhook.provider, webhook.event_id, webhook.body) == ("paypal", "WH-1", BODY)
    assert gate.asked("verify-webhook-signature") == 0


async def test_each_of_several_webhook_ids_works(gate: Gate) -> None:
    assert await gate.take(gate.headers(webhook_id="2OLD"), ids=(WEBHOOK_ID, "2OLD"))


async def test_the_time_is_bound_both_ways(gate: Gate) -> None:
    # PayPal tries for three days and does not say that it signs anew; clocks differ by minutes.
    for offset in (-timedelta(days=3).total_seconds(), 299):
        gate.inbox.kept.clear()
        assert await gate.take(gate.headers(offset=offset)), offset
    for offset in (-timedelta(days=3, hours=2).total_seconds(), 302, 86_400):
        with pytest.raises(InvalidSignatureError):
            await gate.take(gate.headers(offset=offset))


CHANGES: list[tuple[str, str]] = [
    ("paypal-auth-algo", "SHA1withRSA"),
    ("paypal-auth-algo", ""),
    ("paypal-transmission-id", "another"),
    ("paypal-transmission-id", "a|b"),
    ("paypal-transmission-id", ""),
    ("paypal-transmission-time", "yesterday"),
    ("paypal-transmission-time", "2026-11-02T08:30:00"),
    ("paypal-transmission-time", "0001-01-01T00:00:00+14:00"),
    ("paypal-transmission-sig", ""),
    ("paypal-transmission-sig", "not base64!"),
    ("paypal-transmission-sig", "AAAA"),
    ("paypal-cert-url", ""),
    ("paypal-cert-url", "https://evil.example/v1/notifications/certs/CERT-1"),
    ("paypal-cert-url", "http://169.254.169.254/latest/meta-data"),
]


async def test_headers_that_do_not_fit_are_refused_without_asking_anybody(gate: Gate) -> None:
    for name, value in CHANGES:
        with pytest.raises(InvalidSignatureError):
            await gate.take({**gate.headers(), name: value})
    assert gate.inbox.kept == {}
    assert gate.asked("verify-webhook-signature") == 0


async def test_a_changed_body_is_refused(gate: Gate) -> None:
    for body in (BODY + b" ", json.dumps(EVENT).encode(), BODY.replace(b"WH-1", b"WH-2"), b"", b"\xff"):
        with pytest.raises(InvalidSignatureError):
            await gate.take(gate.headers(), body)
    assert gate.inbox.kept == {}


async def test_an_event_for_somebody_elses_webhook_is_refused(gate: Gate) -> None:
    with pytest.raises(InvalidSignatureError):
        await gate.take(gate.headers(webhook_id="9STRANGER"))


async def test_signed_bytes_without_a_usable_id_are_kept_under_their_digest(gate: Gate) -> None:
    for body in (b"not json", b"[]", b'{"id": 5}', b"[" * 50_000):
        assert await gate.take(gate.headers(body), body)
    assert all(name.startswith("unnamed_") for name in gate.inbox.kept)


async def test_without_a_webhook_id_paypal_is_asked_to_come_again(gate: Gate) -> None:
    with pytest.raises(UnavailableError):
        await gate.take(gate.headers(), ids=())


async def test_a_certificate_that_nobody_vouches_for_proves_nothing(gate: Gate) -> None:
    other = Authority("other")
    now = datetime.now(UTC)
    forged = {
        "CERT-self": self_signed(),
        "CERT-other": other.issue(),
        "CERT-name": gate.authority.issue("paypal.com.evil.example"),
        "CERT-sibling": gate.authority.issue("www.paypal.com"),
        "CERT-over": gate.authority.issue(begins=now - timedelta(days=100)),
        "CERT-early": gate.authority.issue(begins=now + timedelta(days=2)),
    }
    for name, signer in forged.items():
        url = gate.publish(name, signer)
        with pytest.raises(InvalidSignatureError):
            await gate.take(gate.headers(signer=signer, cert_url=url))
    # Each was undecided by our own hand, so PayPal was asked, and did not know the signature.
    assert gate.asked("verify-webhook-signature") == len(forged)
    assert gate.inbox.kept == {}


async def test_a_chain_that_lacks_a_link_is_decided_by_paypal(gate: Gate) -> None:
    gate.paypal.certificates["CERT-standin"] = gate.paypal.signer.pem.split(b"-----BEGIN")[1].join([b"-----BEGIN", b""])
    assert await gate.take(gate.headers())
    assert gate.asked("verify-webhook-signature") == 1
    with pytest.raises(InvalidSignatureError):
        await gate.take(gate.headers(), BODY.replace(b"WH-1", b"WH-2"))


async def test_when_neither_can_decide_paypal_is_asked_to_come_again(gate: Gate) -> None:
    gate.paypal.certificates.clear()
    gate.paypal.faults.add({"kind": "unavailable", "path": "/v1/notifications/verify", "count": 1})
    with pytest.raises(UnavailableError):
        await gate.take(gate.headers())
    assert gate.inbox.kept == {}
    assert await gate.take(gate.headers())


async def test_a_body_cannot_turn_the_question_to_paypal_around(gate: Gate) -> None:
    # A stranger's own webhook, truly signed by PayPal for him, dressed up so that we would ask about his webhook id.
    gate.paypal.certificates.clear()
    forged = b'{"id":"WH-9","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{}}'
    headers = gate.headers(forged, webhook_id="9STRANGER")
    for tail in (b', "webhook_id":"9STRANGER"', b'}, {"webhook_id":"9STRANGER"', b"//"):
        with pytest.raises(InvalidSignatureError):
            await gate.take(headers, forged + tail)
    assert gate.asked("verify-webhook-signature") == 0


async def test_a_certificate_is_fetched_once_and_again_when_its_time_is_over(gate: Gate) -> None:
    fetched: list[str] = []
    original = gate.keys._fetch

    async def counting(url: str, now: datetime) -> bytes:
        fetched.append(url)
        return await original(url, now)

    gate.keys._fetch = counting  # type: ignore[method-assign]
    for _ in range(3):
        await gate.take(gate.headers())
    assert len(fetched) == 1
    gate.clock.advance(timedelta(hours=25))
    await gate.take(gate.headers())
    assert len(fetched) == 2
    gate.clock.advance(timedelta(days=91))  # beyond the certificate's end: our own hand cannot tell any more
    await gate.take(gate.headers())
    assert gate.asked("verify-webhook-signature") == 1


async def test_a_stranger_cannot_make_us_fetch_without_end(gate: Gate) -> None:
    for number in range(30):
        with pytest.raises(InvalidSignatureError):
            await gate.take(gate.headers(cert_url=f"{gate.paypal.cert_prefix}CERT-{number}", signer=self_signed()))
    assert len(gate.keys._fetches) == 10


def test_by_default_only_paypals_own_addresses_hold_certificates() -> None:
    prefixes = Settings.model_fields["paypal_cert_prefixes"].default
    good = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77"
    assert is_allowed_address(good, prefixes)
    assert is_allowed_address(good.replace("api.paypal.com", "api-m.sandbox.paypal.com"), prefixes)
    name = "CERT-1"
    for bad in (
        good.replace("https", "http"),
        good.replace("api.paypal.com", "api.paypal.com.evil.example"),
        good.replace("api.paypal.com", "evil.example@api.paypal.com"),
        good.replace("api.paypal.com", "api.paypal.com@evil.example"),
        good.replace("api.paypal.com", "www.paypal.com"),
        good.replace("api.paypal.com", "api.paypal.com:8443"),
        "https://api.paypal.com/v1/notifications/certs/",
        f"https://api.paypal.com/v1/notifications/certs/../../../{name}",
        f"https://api.paypal.com/v1/notifications/certs/{name}?x=1",
        f"https://api.paypal.com/v1/notifications/certs/{name}#x",
        f"https://api.paypal.com/v1/notifications/certs/%2e%2e/{name}",
        "https://api.paypal.com/v1/notifications/certs/..",
        f"https://api.paypal.com/v1/notifications/{name}",
        good + "é",
        good + "a" * 500,
        "",
    ):
        assert not is_allowed_address(bad, prefixes), bad
