"""What the mail says that brings a document, in the document's language. The figures are the snapshot's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from invoicing.document_words import Writer, load_words, locale_of
from invoicing.domain.document import is_credit_note, open_snapshot
from invoicing.domain.invoice_mail import Attachment, InvoiceMail


def write_mail(
    snapshot: Mapping[str, Any],
    recipient: str,
    attachments: Sequence[Attachment],
    *,
    dated: datetime,
    resend_id: str = "",
) -> InvoiceMail:
    """Return the mail with a document, from the seller of its snapshot."""
    shown = open_snapshot(snapshot)
    words, invoice, seller = load_words(shown["language"]), shown["invoice"], shown["seller"]
    writer = Writer(
        words,
        locale_of(shown["language"], shown["bill_to"]["country"]),
        invoice["currency"],
        ZoneInfo(shown["time_zone"]),
    )
    number, name = invoice["number"], shown["bill_to"]["name"]
    period = writer.span({"start": invoice["period_start"], "end": invoice["period_end"]})
    due = Decimal(shown["amount_due"])
    if is_credit_note(shown):
        said = [words.text("mail_credit_note", number=number, amount=writer.money(shown["total"]))]
    elif due:
        amount, date = writer.money(shown["amount_due"]), writer.day(invoice["due_at"])
        said = [words.text("mail_invoice", number=number, period=period, amount=amount, date=date)]
        if shown["transfer"]:
            said.append(words.text("mail_transfer", reference=shown["transfer"]["reference_printed"]))
    else:
        said = [words.text("mail_invoice_settled", number=number, period=period)]
    if len(attachments) > 1:
        said.append(words.text("mail_attachments"))
    subject = words.text(
        "mail_subject_credit_note" if is_credit_note(shown) else "mail_subject_invoice",
        number=number,
        seller=seller["name"],
    )
    parts = [words.text("mail_greeting", name=name), *said, f"{words.text('mail_farewell')}\n{seller['name']}"]
    text = "\n\n".join(parts) + f"\n\n-- \n{seller['footer']}\n"
    return InvoiceMail(
        invoice["invoice_id"],
        seller["name"],
        seller["email"],
        recipient,
        shown["language"],
        subject,
        text,
        attachments,
        dated,
        resend_id,
    )
