"""The Slack and mail stand-ins: what they take, what they refuse, how they fail on demand."""

from __future__ import annotations

import base64
import hashlib
import urllib.error
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import aiosmtplib
import pytest

from tests.standins.process import Standins, call_control


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(http: aiohttp.ClientSession, url: str, **body: Any) -> tuple[int, str, str | None]:
    async with http.post(url, **body) as response:
        return response.status, await response.text(), response.headers.get("Retry-After")


async def test_slack_takes_text_and_blocks(http: aiohttp.ClientSession, standins: Standins) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*80 %*"}}]
    assert await post(http, standins.slack_url, json={"text": "80 % of quota", "blocks": blocks}) == (200, "ok", None)
    assert await post(http, standins.slack_url, json={"blocks": blocks}) == (200, "ok", None)
    first, second = standins.slack_messages()
    assert (first["text"], first["payload"]["blocks"]) == ("80 % of quota", blocks)
    assert second["text"] is None


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"not json", "invalid_payload"),
        (b"[]", "invalid_payload"),
        (b'{"text": 5}', "invalid_payload"),
        (b"{}", "no_text"),
        (b'{"text": ""}', "no_text"),
        (b'{"text": "a", "blocks": [{}]}', "invalid_blocks"),
        (b'{"text": "a", "blocks": "b"}', "invalid_blocks"),
    ],
)
async def test_slack_refuses_what_it_cannot_read(
    http: aiohttp.ClientSession, standins: Standins, body: bytes, word: str
) -> None:
    headers = {"Content-Type": "application/json"}
    assert await post(http, standins.slack_url, data=body, headers=headers) == (400, word, None)
    assert standins.slack_messages() == []


async def test_slack_refuses_an_unknown_hook(http: aiohttp.ClientSession, standins: Standins) -> None:
    assert await post(http, f"{standins.slack_url}x", json={"text": "a"}) == (404, "no_service", None)


async def test_slack_fails_on_demand_and_then_recovers(http: aiohttp.ClientSession, standins: Standins) -> None:
    standins.fail_slack("rate_limit", retry_after_seconds=7)
    standins.fail_slack("server_error", count=2)
    standins.fail_slack("cut_after")
    message = {"text": "100 %"}
    assert await post(http, standins.slack_url, json=message) == (429, "rate_limited", "7")
    for _ in range(2):
        assert await post(http, standins.slack_url, json=message) == (500, "rollup_error", None)
    assert standins.slack_messages() == []
    with pytest.raises(aiohttp.ClientError):
        await post(http, standins.slack_url, json=message)
    assert len(standins.slack_messages()) == 1
    assert await post(http, standins.slack_url, json=message) == (200, "ok", None)


def mail(text: str = "Your usage is at 80 %.\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "Meterbook <alerts@meterbook.invalid>", "Zoë <zoe@example.com>"
    message["Subject"], message["Message-ID"] = "Quota: 80 % — áéí", "<alert-1@meterbook.invalid>"
    message.set_content(text)
    message.add_attachment(b"%PDF-1.7 \x00\xff", maintype="application", subtype="pdf", filename="INV-1.pdf")
    return message


async def send(standins: Standins, message: EmailMessage) -> None:
    address = urlsplit(standins.smtp_url)
    await aiosmtplib.send(message, hostname=address.hostname, port=address.port, start_tls=False, timeout=10)


async def test_mail_is_kept_with_all_its_parts(standins: Standins) -> None:
    await send(standins, mail())
    (kept,) = standins.mails()
    assert kept["message_id"] == "<alert-1@meterbook.invalid>"
    assert kept["subject"] == "Quota: 80 % — áéí"
    assert kept["to"] == "Zoë <zoe@example.com>"
    assert (kept["envelope_from"], kept["envelope_to"]) == ("alerts@meterbook.invalid", ["zoe@example.com"])
    assert kept["text"] == "Your usage is at 80 %.\n"
    (attachment,) = kept["attachments"]
    content = b"%PDF-1.7 \x00\xff"
    assert (attachment["filename"], attachment["content_type"]) == ("INV-1.pdf", "application/pdf")
    assert base64.b64decode(attachment["content_base64"]) == content
    assert attachment["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("stage", "code"), [("mail", 451), ("rcpt", 550), ("data", 451), ("data", 550)])
async def test_mail_is_refused_on_demand_and_then_taken(standins: Standins, stage: str, code: int) -> None:
    standins.fail_smtp("refuse", count=2, stage=stage, code=code)
    for _ in range(2):
        with pytest.raises(aiosmtplib.SMTPException) as caught:
            await send(standins, mail())
        refusals = getattr(caught.value, "recipients", None)
        assert [error.code for error in refusals] == [code] if refusals else getattr(caught.value, "code", 0) == code
    assert standins.mails() == []
    await send(standins, mail())
    assert len(standins.mails()) == 1


async def test_mail_taken_but_not_confirmed_comes_again_with_one_message_id(standins: Standins) -> None:
    standins.fail_smtp("cut_after")
    with pytest.raises(aiosmtplib.SMTPException):
        await send(standins, mail())
    await send(standins, mail())
    assert [kept["message_id"] for kept in standins.mails()] == ["<alert-1@meterbook.invalid>"] * 2


@pytest.mark.parametrize("body", [{"kind": "nothing"}, {"kind": "slow", "count": 0}, {"kind": "slow", "extra": 1}])
def test_a_wrong_control_request_is_refused(standins: Standins, body: dict[str, Any]) -> None:
    for control in (standins.stripe_control, standins.slack_control, standins.smtp_control):
        with pytest.raises(urllib.error.HTTPError) as caught:
            call_control(f"{control}/faults", body)
        assert caught.value.code == 400
        caught.value.close()
