"""The mail that brings a document. Owns its Message-ID: one per document, address and wish, so sent twice it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, parseaddr

from core.ids import derive_id


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a mail."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class InvoiceMail:
    """A mail with a document. `dated` is when it was first to be sent, so that a repeat is the same to the byte.

    `resend_id` names the wish to have it sent once more, which makes it another mail.
    """

    invoice_id: str
    sender_name: str
    sender: str
    recipient: str
    language: str
    subject: str
    text: str
    attachments: Sequence[Attachment]
    dated: datetime
    resend_id: str = ""

    @property
    def _cause(self) -> tuple[str, ...]:
        return (self.invoice_id, self.recipient, *([self.resend_id] if self.resend_id else []))

    @property
    def message_id(self) -> str:
        """Made from what it is sent for: receivers that have it already drop a repeat."""
        domain = parseaddr(self.sender)[1].rpartition("@")[2] or "meterbook.invalid"
        return f"<{derive_id('mail', *self._cause)}@{domain}>"

    def as_message(self) -> EmailMessage:
        """Return the message as it is sent; headers cannot be added to by a name that holds a line break."""
        mail = EmailMessage()
        mail["Subject"] = _one_line(self.subject)
        mail["From"] = formataddr((_one_line(self.sender_name), self.sender))
        mail["To"] = self.recipient
        mail["Date"] = format_datetime(self.dated)
        mail["Message-ID"] = self.message_id
        mail["Content-Language"] = self.language
        # RFC 3834: no out-of-office replies to a machine.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(self.text)
        for one in self.attachments:
            kind, _, subtype = one.media_type.partition("/")
            mail.add_attachment(one.content, maintype=kind, subtype=subtype, filename=one.name)
        mail.set_boundary(derive_id("part", *self._cause))
        return mail


def _one_line(text: str) -> str:
    return " ".join(text.split())
