"""Makes an invoice's PDF from its stored snapshot, once."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from core.clock import Clock
from core.errors import Fault, InvalidInputError, must_hold
from invoicing.ports import Document, DocumentRegister, DocumentStore
from rating.domain.digest import digest_of

MEDIA_TYPE = "application/pdf"
Render = Callable[[Mapping[str, Any]], Awaitable[bytes]]
log = structlog.get_logger()


async def render_invoice(
    invoice_id: str, *, register: DocumentRegister, documents: DocumentStore, render: Render, clock: Clock
) -> Document:
    """Return the invoice's document, rendering it unless the recorded one is still there, byte for byte.

    Raises `InvalidInputError` (`unknown_invoice`). A snapshot that is not what its hash says stops the work.
    """
    stored = await register.snapshot(invoice_id)
    if stored is None:
        raise InvalidInputError([Fault("unknown_invoice", f"no finalized invoice {invoice_id!r}", "invoice_id")])
    must_hold(digest_of(stored.snapshot) == stored.sha256, f"the snapshot of {stored.number} was changed")
    before = await register.document(invoice_id, MEDIA_TYPE)
    if before is not None and await documents.holds(before.location, before.sha256):
        return before
    content = await render(stored.snapshot)
    location = await documents.write(f"{stored.tenant_id}/{stored.number}.pdf", content)
    document = Document(invoice_id, MEDIA_TYPE, location, hashlib.sha256(content).hexdigest(), len(content))
    await register.put_document(document, clock.now())
    log.info("document.rendered", tenant=stored.tenant_id, number=stored.number, bytes=len(content))
    return document
