"""Takes a PayPal webhook in: prove that PayPal sent these bytes to us, keep them, answer at once.

First by our own hand: RSA-SHA256 over `transmission id|time|webhook id|CRC32 of the raw body`, with a certificate that
`payments.adapters.paypal_certificates` believes. Where that cannot be decided (the certificate is not to be had, or its
chain lacks a link), PayPal is asked (`verify-webhook-signature`). A signature that is wrong is wrong: nobody is asked.
Anything unverified leaves no trace but a counter. Source: PayPal's page "Integrate webhooks", message verification.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from core.clock import Clock
from core.errors import Fault, UnavailableError
from core.ids import derive_id
from payments.paypal_ports import KeyFinder, SignatureJudge, UntrustedCertificateError
from payments.ports import StoredWebhook, WebhookInbox
from payments.receive_webhook import WEBHOOKS, InvalidSignatureError

PAYPAL = "paypal"
# PayPal tries for three days and does not say that it signs each try anew, so an honest one may be that old. A
# repetition within them is harmless: the inbox keeps each event once.
PAST_MAX = timedelta(days=3, hours=1)
FUTURE_MAX = timedelta(minutes=5)
_ALGORITHM = "SHA256withRSA"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)
_TRANSMISSION_ID = re.compile(r"[A-Za-z0-9-]{1,50}", re.ASCII)
_SIGNATURE_BYTES_MAX = 1_024
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Transmission:
    """The headers of a webhook, checked for form."""

    transmission_id: str
    time: str
    signature: bytes
    signature_text: str
    cert_url: str


async def receive_paypal_webhook(
    body: bytes,
    headers: Mapping[str, str],
    *,
    webhook_ids: Sequence[str],
    keys: KeyFinder,
    judge: SignatureJudge,
    inbox: WebhookInbox,
    clock: Clock,
) -> bool:
    """Keep a signed PayPal webhook; False if its event was kept before. Header names are in lower case.

    Raises `InvalidSignatureError` (one answer for every cause, so that nothing can be learnt by trying), and
    `UnavailableError` when it cannot be decided now or no webhook id is configured, so that PayPal sends it again.
    """
    if not webhook_ids:
        WEBHOOKS.labels(PAYPAL, "not_configured").inc()
        raise UnavailableError("no PayPal webhook id is configured")
    now = clock.now()
    transmission = read_transmission(headers, now)
    if transmission is None or not keys.is_allowed(transmission.cert_url):
        raise _refuse()
    try:
        is_authentic = await _is_authentic(body, transmission, webhook_ids, keys, judge)
    except UnavailableError:
        WEBHOOKS.labels(PAYPAL, "undecided").inc()
        raise
    if not is_authentic:
        raise _refuse()
    is_new = await inbox.add(_address(body), now)
    WEBHOOKS.labels(PAYPAL, "kept" if is_new else "repeated").inc()
    return is_new


def _refuse() -> InvalidSignatureError:
    WEBHOOKS.labels(PAYPAL, "refused").inc()
    return InvalidSignatureError([Fault("invalid_signature", "the PAYPAL-* headers do not fit the body")])


def read_transmission(headers: Mapping[str, str], now: datetime) -> Transmission | None:
    """Return the headers if they have the form of PayPal's and their time is within the bounds."""
    transmission_id, time = headers.get("paypal-transmission-id", ""), headers.get("paypal-transmission-time", "")
    text, url = headers.get("paypal-transmission-sig", ""), headers.get("paypal-cert-url", "")
    if headers.get("paypal-auth-algo") != _ALGORITHM or not _TRANSMISSION_ID.fullmatch(transmission_id):
        return None
    try:
        at = datetime.fromisoformat(time) if time.isascii() and len(time) <= 40 else None
        signature = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        return None
    if at is None or at.tzinfo is None or not signature or len(signature) > _SIGNATURE_BYTES_MAX:
        return None
    try:
        age = now - at.astimezone(UTC)
    except OverflowError:
        return None
    if not -FUTURE_MAX <= age <= PAST_MAX:
        return None
    return Transmission(transmission_id, time, signature, text, url)


async def _is_authentic(
    body: bytes, transmission: Transmission, webhook_ids: Sequence[str], keys: KeyFinder, judge: SignatureJudge
) -> bool:
    try:
        key = await keys.find_key(transmission.cert_url)
    except (UnavailableError, UntrustedCertificateError) as error:
        log.warning("paypal.certificate_undecided", reason=str(error), url=transmission.cert_url)
        return await _ask(body, transmission, webhook_ids, judge)
    return any(fits(key, body, transmission, webhook_id) for webhook_id in webhook_ids)


def fits(key: rsa.RSAPublicKey, body: bytes, transmission: Transmission, webhook_id: str) -> bool:
    """Tell whether the signature is over this body, sent to this webhook id."""
    crc = zlib.crc32(body)
    message = f"{transmission.transmission_id}|{transmission.time}|{webhook_id}|{crc}".encode()
    try:
        key.verify(transmission.signature, message, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


async def _ask(body: bytes, transmission: Transmission, webhook_ids: Sequence[str], judge: SignatureJudge) -> bool:
    for webhook_id in webhook_ids:
        content = build_postback(body, transmission, webhook_id)
        if content is None:
            return False
        if await judge.confirms(content):
            return True
    return False


def build_postback(body: bytes, transmission: Transmission, webhook_id: str) -> bytes | None:
    """Return the question to PayPal, with the body in it byte for byte: encoding it anew would break the signature.

    None unless the body is exactly one JSON object. Otherwise `{},"webhook_id":"…"` as a body would change the
    question: PayPal would be asked about a stranger's webhook and truthfully say yes.
    """
    try:
        event = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    question = {
        "auth_algo": _ALGORITHM,
        "cert_url": transmission.cert_url,
        "transmission_id": transmission.transmission_id,
        "transmission_sig": transmission.signature_text,
        "transmission_time": transmission.time,
        "webhook_id": webhook_id,
    }
    return json.dumps(question).encode()[:-1] + b', "webhook_event": ' + body + b"}"


class _Envelope(msgspec.Struct):
    id: str
    event_type: str


def _address(body: bytes) -> StoredWebhook:
    """Name the webhook by its event id; signed bytes that have none are kept too, named by what they are."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        envelope = _Envelope("", "")
    digest = hashlib.sha256(body).hexdigest()
    event_id = envelope.id if _NAME.fullmatch(envelope.id) else derive_id("unnamed", digest)
    event_type = envelope.event_type if _NAME.fullmatch(envelope.event_type) else "unreadable"
    return StoredWebhook(PAYPAL, event_id, event_type, body)
