"""Delivery by mail: once, with the same Message-ID whenever it is tried, and only what was recorded."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.errors import ConflictError, InvalidInputError, NotFoundError
from invoicing.adapters.folder import FolderDocuments
from invoicing.adapters.smtp import SmtpMailer
from invoicing.deliver_invoice import deliver_next
from invoicing.domain.delivery import LONGEST_PAUSE, REFUSALS_MAX, TRIES_MAX, Answer, Attempt, plan_next
from invoicing.domain.document import LANGUAGES
from invoicing.domain.invoice_mail import Attachment
from invoicing.invoice_mail_text import write_mail
from invoicing.ports import Document, StoredSnapshot
from invoicing.resend_invoice import resend_invoice
from tests.invoicing.documents.memory import ListeningMailer, MemoryDocuments, void
from tests.invoicing.documents.samples import snapshot
from tests.invoicing.scene import at
from tests.standins.smtp_server import SmtpStandIn

NOW = at("2026-11-03")


class Post:
    def __init__(self, folder: Path, shown: dict[str, Any] | None = None) -> None:
        self.stored = StoredSnapshot("inv_1", "acme", "MB-2026-000042", shown or snapshot(), "0")
        self.register, self.documents = MemoryDocuments(self.stored), FolderDocuments(folder)
        self.mailer, self.clock = ListeningMailer(), ManualClock(NOW)

    async def record(self, address: str = "ap@acme.example") -> None:
        made = []
        for media_type, ending in (("application/pdf", ".pdf"), ("application/xml;syntax=ubl", ".ubl.xml")):
            content = b"content of " + ending.encode()
            location = await self.documents.write(f"acme/MB{ending}", content)
            made.append(Document("inv_1", media_type, location, hashlib.sha256(content).hexdigest(), len(content)))
        await self.register.record(made, send_to=address, now=self.clock.now())

    async def deliver(self, mailer: Any = None) -> bool:
        return await deliver_next(
            deliveries=self.register, documents=self.documents, mailer=mailer or self.mailer, clock=self.clock
        )

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.register.rows.values()
        return row


async def test_a_document_goes_out_once_with_pdf_and_xml(tmp_path: Path) -> None:
    post = Post(tmp_path)
    assert not await post.deliver()
    await post.record()
    await post.record()
    assert await post.deliver()
    assert not await post.deliver()
    (mail,) = post.mailer.mails
    assert [(one.name, one.content) for one in mail.attachments] == [
        ("MB-2026-000042.pdf", b"content of .pdf"),
        ("MB-2026-000042.xml", b"content of .ubl.xml"),
    ]
    assert (post.row["status"], post.row["attempts"]) == ("sent", 1)


async def test_what_could_not_be_sent_is_tried_again_with_the_same_identity(tmp_path: Path) -> None:
    post = Post(tmp_path)
    await post.record()
    post.mailer.answers = [Attempt(Answer.UNAVAILABLE, "421 later"), Attempt(Answer.REFUSED, "550 no")]
    for _ in range(3):
        assert await post.deliver()
        assert not await post.deliver(), "not before its pause is over"
        post.clock.advance(timedelta(minutes=2))
    assert len({mail.message_id for mail in post.mailer.mails}) == 1
    assert len({bytes(mail.as_message()) for mail in post.mailer.mails}) == 1, "the same to the byte"
    assert (post.row["status"], post.row["attempts"]) == ("sent", 3)


async def test_a_file_that_is_not_what_was_recorded_never_leaves(tmp_path: Path) -> None:
    post = Post(tmp_path)
    await post.record()
    (tmp_path / "acme" / "MB.ubl.xml").write_bytes(b"tampered")
    assert await post.deliver()
    assert (post.mailer.mails, post.row["status"]) == ([], "pending")
    assert "not what was recorded" in post.row["error"]


async def test_an_invoice_that_was_taken_back_before_it_left_is_not_sent(tmp_path: Path) -> None:
    post = Post(tmp_path)
    await post.record()
    post.register.snapshots["inv_1"] = void(post.stored)
    assert await post.deliver()
    assert (post.mailer.mails, post.row["status"], post.row["error"]) == ([], "refused", "the invoice is void")


async def test_what_is_sent_once_more_is_a_mail_of_its_own_once_per_key(tmp_path: Path) -> None:
    post = Post(tmp_path)
    await post.record()
    assert await post.deliver()
    for reference, to, key in (("inv_1", None, "a"), ("MB-2026-000042", None, "a"), ("inv_1", "x@b.example", "b")):
        sent = await resend_invoice(reference, to=to, key=key, resends=post.register, clock=post.clock)
        assert (sent.address, sent.status) == (to or "ap@acme.example", "pending")
    while await post.deliver():
        pass
    mails = post.mailer.mails
    assert [mail.recipient for mail in mails] == ["ap@acme.example", "ap@acme.example", "x@b.example"]
    assert len({mail.message_id for mail in mails}) == 3
    assert mails[1].attachments == mails[0].attachments
    again = await resend_invoice("inv_1", to=None, key="a", resends=post.register, clock=post.clock)
    assert (again.status, again.attempts, again.sent_at) == ("sent", 1, NOW)
    assert not await post.deliver(), "the same key is the same mail"
    with pytest.raises(ConflictError):
        await resend_invoice("inv_1", to="other@b.example", key="a", resends=post.register, clock=post.clock)


@pytest.mark.parametrize(
    ("to", "code"),
    [(None, "no_address"), ("", "no_address"), ("acme", "invalid_address"), ("a@b, c@d", "invalid_address"),
     ("a@b\r\nBcc: c@d", "invalid_address"), (f"{'a' * 250}@b.example", "invalid_address")],
)  # fmt: skip
async def test_what_cannot_be_sent_is_refused_by_name(tmp_path: Path, to: str | None, code: str) -> None:
    post = Post(tmp_path, snapshot(bill_to={"email": ""}))
    with pytest.raises(InvalidInputError) as refused:
        await resend_invoice("inv_1", to=to, key="a", resends=post.register, clock=post.clock)
    assert (refused.value.faults[0].code, post.register.rows) == (code, {})
    with pytest.raises(NotFoundError):
        await resend_invoice("inv_2", to="a@b.example", key="a", resends=post.register, clock=post.clock)
    post.register.snapshots["inv_1"] = void(post.stored)
    with pytest.raises(InvalidInputError) as refused:
        await resend_invoice("inv_1", to="a@b.example", key="a", resends=post.register, clock=post.clock)
    assert refused.value.faults[0].code == "void_invoice"


@given(st.integers(min_value=1, max_value=400), st.sampled_from(Answer))
def test_pauses_grow_to_an_hour_and_it_ends(attempts: int, answer: Answer) -> None:
    plan = plan_next(Attempt(answer), attempts=attempts, now=NOW)
    last = {Answer.SENT: 1, Answer.REFUSED: REFUSALS_MAX, Answer.UNAVAILABLE: TRIES_MAX}[answer]
    assert (plan.status == "pending") == (attempts < last and answer is not Answer.SENT)
    assert timedelta(0) <= plan.next_attempt_at - NOW <= LONGEST_PAUSE
    if plan.status == "pending" and attempts > 1:
        before = plan_next(Attempt(answer), attempts=attempts - 1, now=NOW)
        assert plan.next_attempt_at >= before.next_attempt_at


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_mail_says_what_is_due_in_the_buyers_language(language: str) -> None:
    pdf = Attachment("a.pdf", "application/pdf", b"%PDF")
    mail = write_mail(snapshot(language=language, country="DE"), "ap@acme.example", [pdf], dated=NOW)
    for said in ("MB-2026-000042", "179.77" if language == "en" else "179,77", "RF78 MB20 2600 0042"):
        assert said in mail.text, said
    settled = write_mail(snapshot(language=language, credits_applied="179.77"), "a@b.example", [pdf], dated=NOW)
    assert "RF78" not in settled.text
    credit = write_mail(snapshot(language=language, kind="credit_note"), "a@b.example", [pdf], dated=NOW)
    assert "MB-CN-2026-000007" in credit.text
    assert credit.subject != mail.subject


def test_a_name_cannot_write_headers() -> None:
    nasty = snapshot(name="Acme\r\nBcc: all@example.com", seller={"name": "Evil\r\nBcc: x@example.com"})
    message = write_mail(nasty, "ap@acme.example", [], dated=NOW).as_message()
    assert message["Bcc"] is None
    assert message["Subject"].endswith("Evil Bcc: x@example.com")


async def test_a_real_server_gets_it_whole_and_its_replies_are_understood(tmp_path: Path) -> None:
    server = SmtpStandIn()
    await server.start()
    try:
        post = Post(tmp_path, snapshot(language="de", name="Ünï 🚀 GmbH"))
        await post.record()
        assert await post.deliver(SmtpMailer(server.url))
        assert post.row["status"] == "sent"
        (message,) = server.messages
        mail = write_mail(post.stored.snapshot, "ap@acme.example", [], dated=NOW)
        assert message["message_id"] == mail.message_id
        assert message["subject"] == "Rechnung MB-2026-000042 von Meterbook Example GmbH"
    finally:
        await server.stop()
    away = Post(tmp_path)
    await away.record()
    assert await away.deliver(SmtpMailer(server_url_of(server), timeout_seconds=1))
    assert (away.row["status"], away.row["error"][:9]) == ("pending", "no answer")


def server_url_of(_: SmtpStandIn) -> str:
    """A port where nobody listens any more."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"smtp://127.0.0.1:{free.getsockname()[1]}"
