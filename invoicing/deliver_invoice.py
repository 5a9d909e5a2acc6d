"""Sends one due document by mail and writes down what became of it.

The row is held from the try to its record, so two workers never send the same one. A crash in between sends again, with
the same Message-ID. What is sent is what was recorded: bytes that do not match their SHA-256 never leave.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

import structlog
from prometheus_client import Counter

from core.clock import Clock
from invoicing.document_ports import DocumentDeliveries, DocumentDelivery, DocumentStore, Mailer
from invoicing.domain.delivery import Answer, Attempt, Plan, plan_next
from invoicing.domain.document import PDF_TYPE, UBL_TYPE
from invoicing.domain.invoice_mail import Attachment
from invoicing.invoice_mail_text import write_mail

log = structlog.get_logger()
_DELIVERIES = Counter("meterbook_document_deliveries_total", "Tries to deliver a document", ["outcome"])
_VOID = "void"


async def deliver_next(
    *, deliveries: DocumentDeliveries, documents: DocumentStore, mailer: Mailer, clock: Clock
) -> bool:
    """Try the most overdue delivery; False if none was due."""
    async with deliveries.hold_due(clock.now()) as held:
        if held is None:
            return False
        delivery = held.delivery
        if delivery.status == _VOID:
            # It was taken back before it left: nobody shall pay it.
            attempt = Attempt(Answer.REFUSED, "the invoice is void")
            plan = Plan("refused", clock.now())
        else:
            attempt = await _try(delivery, documents, mailer)
            plan = plan_next(attempt, attempts=delivery.attempts + 1, now=clock.now())
        now = clock.now()
        await held.record(plan, error=attempt.error, now=now)
    _DELIVERIES.labels(attempt.answer.value).inc()
    level = log.info if plan.status == "sent" else log.error if plan.status == "refused" else log.warning
    level(
        f"document.{attempt.answer.value}",
        invoice_id=delivery.invoice_id,
        attempts=delivery.attempts + 1,
        error=attempt.error,
        next_in_seconds=(plan.next_attempt_at - now) / timedelta(seconds=1),
    )
    return True


async def _try(delivery: DocumentDelivery, documents: DocumentStore, mailer: Mailer) -> Attempt:
    number = delivery.snapshot["invoice"]["number"]
    attachments = []
    for media_type, name in ((PDF_TYPE, f"{number}.pdf"), (UBL_TYPE, f"{number}.xml")):
        document = delivery.documents.get(media_type)
        if document is None and media_type == UBL_TYPE:
            continue
        content = await documents.read(document.location) if document else None
        if document is None or content is None or hashlib.sha256(content).hexdigest() != document.sha256:
            return Attempt(Answer.UNAVAILABLE, f"{name} is not at hand, or not what was recorded")
        attachments.append(Attachment(name, media_type.partition(";")[0], content))
    mail = write_mail(
        delivery.snapshot, delivery.address, attachments, dated=delivery.created_at, resend_id=delivery.resend_id
    )
    return await mailer.send(mail)
