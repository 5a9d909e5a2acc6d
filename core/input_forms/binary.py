"""CloudEvents in binary mode: attributes in headers, the body being `data` alone. Owns reading them on Kafka and HTTP.

Sources: CloudEvents 1.0.2, Kafka protocol binding §3.2 (headers `ce_*`, values UTF-8) and HTTP protocol binding §3.1
(headers `ce-*`, values percent-encoded). `content-type` tells the mode: `application/cloudevents+json` (structured) and
`application/cloudevents-batch+json` (batch) mean that the value is the event or an array of them. Structured messages
may repeat attributes in headers (§3.3.3, §3.2.3); where the two disagree, the message is refused rather than one
believed.

The data go into the structured form byte for byte, so every digit of a number survives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from core.input_forms.fields import UNREADABLE
from core.usage_event import CloudEvent, Rejection

# What aiokafka hands out, compiled or not; a header's value may be null.
KafkaHeaders = Sequence[tuple[str, bytes | None]]
_REQUIRED = ("specversion", "id", "source", "type", "subject", "time")
_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_JSON = re.compile(r"application/(?:[a-z0-9!#$&^_.+-]+\+)?json|text/json")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UTF8 = frozenset({"", "utf-8", "utf8", "us-ascii"})
_decode_object = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
_encode = msgspec.json.Encoder().encode


def is_binary(headers: KafkaHeaders) -> bool:
    """Say whether any header is an attribute of a CloudEvent; costs next to nothing for records without headers."""
    if not headers:
        return False
    return any(name.startswith("ce_") for name, _ in headers)


def read_binary_event(headers: KafkaHeaders, value: bytes | None) -> CloudEvent | Rejection | None:
    """Return the event of a Kafka record in binary mode, why it is refused, or None if its value is the event itself.

    Codes: `tombstone`, `missing_field`, `invalid_field`, `duplicate_header`, `ambiguous_mode`,
    `unsupported_media_type`, `not_json`. What comes out is judged by `core.usage_event.judge_event` like any other.
    """
    read = _read_kafka(headers, value)
    return read[0] if isinstance(read, tuple) else read


def to_structured(headers: KafkaHeaders, value: bytes | None) -> bytes | Rejection | None:
    """Return a Kafka record in binary mode as structured JSON; otherwise as `read_binary_event`.

    It decodes to the very event that `read_binary_event` gives, and keeps extension attributes as texts.
    """
    read = _read_kafka(headers, value)
    return read[1] if isinstance(read, tuple) else read


def read_binary_request(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes | Rejection | None:
    """Return an HTTP request in binary mode as structured JSON, why it is refused, or None if it is not binary.

    `headers` are lower-case names with values as they came. Codes as `read_binary_event`.
    """
    found: list[tuple[str, str]] = []
    content_type: str | None = None
    for name, value in headers:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name.startswith(b"ce-"):
            attribute = name[3:].decode("latin-1")
            text = _decode_http(value)
            if text is None:
                reason = f"header ce-{attribute[:80]} must be printable ASCII with UTF-8 percent-encoded"
                return Rejection("invalid_field", reason, f"/{attribute[:80]}")
            found.append((attribute, text))
    read = _read(found, content_type, body, "ce-")
    return read[1] if isinstance(read, tuple) else read


def _read_kafka(headers: KafkaHeaders, value: bytes | None) -> tuple[CloudEvent, bytes] | Rejection | None:
    if not is_binary(headers):
        return None
    found: list[tuple[str, str]] = []
    content_type: str | None = None
    for name, raw in headers:
        if name != "content-type" and not name.startswith("ce_"):
            continue
        try:
            text = (raw or b"").decode()
        except UnicodeDecodeError:
            reason = f"header {name[:80]} is not UTF-8"
            return Rejection("invalid_field", reason, f"/{name[3:83]}" if name.startswith("ce_") else "")
        if name == "content-type":
            content_type = text
        else:
            found.append((name[3:], text))
    return _read(found, content_type, value, "ce_")


def _read(
    found: list[tuple[str, str]], content_type: str | None, value: bytes | None, prefix: str
) -> tuple[CloudEvent, bytes] | Rejection | None:
    if not found:
        return None
    if value is None:
        return Rejection("tombstone", "the record has no value")
    attributes = dict(found)
    if len(attributes) < len(found):
        names = [name for name, _ in found]
        twice = next(name for name in names if names.count(name) > 1)
        return Rejection("duplicate_header", f"header {prefix}{twice[:80]} stands here twice", f"/{twice[:80]}")
    media, _, parameters = (content_type or "").partition(";")
    media = media.strip().lower()
    if media == _BATCH:
        return Rejection("ambiguous_mode", f"an array of events has no {prefix} headers of its own")
    if media == _STRUCTURED:
        return _compare(attributes, value, prefix)
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip().strip('"')
    if (media and not _JSON.fullmatch(media)) or charset not in _UTF8:
        given = (content_type or "")[:80]
        return Rejection("unsupported_media_type", f"data must be JSON in UTF-8, not {given!r}", "/datacontenttype")
    return _assemble(attributes, (content_type or "").strip(), value, prefix)


def _assemble(
    attributes: dict[str, str], content_type: str, value: bytes, prefix: str
) -> tuple[CloudEvent, bytes] | Rejection:
    missing = [name for name in _REQUIRED if not attributes.get(name)]
    if missing:
        told = ", ".join(prefix + name for name in missing)
        return Rejection("missing_field", f"missing or empty headers: {told}", f"/{missing[0]}")
    if "data" in attributes:
        return Rejection("invalid_field", f"{prefix}data is no attribute: the value is the data", "/data")
    if not value.strip():
        return Rejection("missing_field", "the data are missing: the value is empty", "/data")
    try:
        data = _decode_object(value)
    except msgspec.ValidationError:
        return Rejection("invalid_field", "data must be a JSON object", "/data")
    except UNREADABLE as error:
        return Rejection("not_json", f"the data are not JSON: {str(error)[:200]}", "/data")
    if content_type:
        attributes["datacontenttype"] = content_type
    event = CloudEvent(
        specversion=attributes["specversion"],
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes["subject"],
        time=attributes["time"],
        data=data,
    )
    return event, _encode({**attributes, "data": msgspec.Raw(value)})


def _compare(attributes: Mapping[str, str], value: bytes, prefix: str) -> Rejection | None:
    """Return None if a structured event says what the headers beside it say, or what differs."""
    try:
        event = _decode_object(value)
    except UNREADABLE:
        return None  # judged, and refused, as the structured event that it claims to be
    for name in _REQUIRED:
        if name in attributes and event.get(name) != attributes[name]:
            reason = f"both modes at once: header {prefix}{name} and the structured event disagree"
            return Rejection("ambiguous_mode", reason, f"/{name}")
    return None


def _decode_http(value: bytes) -> str | None:
    """Return a header's value unquoted (RFC 7230 §3.2.6) and percent-decoded once, or None if it is malformed."""
    try:
        text = value.decode("ascii").strip()
    except UnicodeDecodeError:
        return None
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    if _STRAY_PERCENT.search(text):
        return None
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None
