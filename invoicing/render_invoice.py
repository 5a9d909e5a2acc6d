"""Makes an invoice's documents from its stored snapshot, once: bytes are kept first, then recorded, then sent."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from prometheus_client import Counter

from core.clock import Clock
from core.errors import Fault, InvalidInputError, MeterbookError, must_hold
from invoicing.document_ports import DocumentRegister, DocumentStore
from invoicing.domain.document import CII_TYPE, PDF_TYPE, UBL_TYPE, VOID_PDF_TYPE, Mark
from invoicing.ports import Document, StoredSnapshot
from invoicing.render_document import Rendered
from rating.domain.digest import digest_of

Render = Callable[[Mapping[str, Any], Mark], Awaitable[Rendered]]
_ENDINGS = {PDF_TYPE: ".pdf", CII_TYPE: ".cii.xml", UBL_TYPE: ".ubl.xml", VOID_PDF_TYPE: ".void.pdf"}
_VOID = "void"
_GLYPHS_MISSING = Counter(
    "meterbook_documents_glyphs_missing_total", "Documents with characters that no font has: drawn as empty boxes"
)
log = structlog.get_logger()


class RenderingFailedError(MeterbookError):
    """The document could not be rendered: the template, the snapshot or the renderer has a fault."""

    code = "rendering_failed"


async def render_invoice(
    invoice_id: str,
    *,
    register: DocumentRegister,
    documents: DocumentStore,
    render: Render,
    clock: Clock,
    mark: Mark = "",
    by_mail: bool = False,
) -> Document:
    """Return the invoice's PDF, rendering its documents unless the recorded ones are still there, byte for byte.

    `mark` "void" makes the copy of a void invoice that says so. `by_mail` sends the documents to the buyer, once.
    Raises `InvalidInputError`: `unknown_invoice`, or `rendering_failed` with the renderer's reason, for a person; the
    books need no document. A snapshot that is not what its hash says stops the work.
    """
    stored = await register.snapshot(invoice_id)
    if stored is None:
        raise InvalidInputError([Fault("unknown_invoice", f"no finalized invoice {invoice_id!r}", "invoice_id")])
    must_hold(digest_of(stored.snapshot) == stored.sha256, f"the snapshot of {stored.number} was changed")
    wanted = VOID_PDF_TYPE if mark else PDF_TYPE
    before = await register.documents(invoice_id)
    found = [before[wanted], *_others(before, mark)] if wanted in before else []
    if found and all([await _is_kept(document, documents) for document in found]):
        return before[wanted]
    try:
        rendered = await render(stored.snapshot, mark)
    except RenderingFailedError as error:
        log.error("document.failed", invoice_id=invoice_id, number=stored.number, error=str(error))
        raise InvalidInputError([Fault(error.code, str(error), "invoice_id")]) from error
    _say_glyphs_missing(stored, rendered)
    made = [await _keep(stored, media_type, content, documents) for media_type, content in _files(rendered, wanted)]
    send_to = str(stored.snapshot["bill_to"]["email"]) if by_mail and not mark and stored.status != _VOID else None
    await register.record(made, send_to=send_to or None, now=clock.now())
    log.info(
        "document.rendered",
        tenant=stored.tenant_id,
        number=stored.number,
        bytes=made[0].size_bytes,
        no_e_invoice=rendered.refusal,
    )
    return made[0]


def _say_glyphs_missing(stored: StoredSnapshot, rendered: Rendered) -> None:
    """Let a person hear of it: the document is right in every figure, but a name in it cannot be read."""
    if rendered.glyphs_missing:
        _GLYPHS_MISSING.inc()
        log.error(
            "document.glyphs_missing",
            tenant=stored.tenant_id,
            number=stored.number,
            characters=rendered.glyphs_missing,
            codes=[f"U+{ord(char):04X}" for char in rendered.glyphs_missing],
        )


def _others(before: Mapping[str, Document], mark: Mark) -> list[Document]:
    return [] if mark else [before[media_type] for media_type in (CII_TYPE, UBL_TYPE) if media_type in before]


def _files(rendered: Rendered, wanted: str) -> list[tuple[str, bytes]]:
    files = [(wanted, rendered.pdf)]
    if rendered.e_invoice is not None:
        files += [(CII_TYPE, rendered.e_invoice.cii), (UBL_TYPE, rendered.e_invoice.ubl)]
    return files


async def _keep(stored: StoredSnapshot, media_type: str, content: bytes, documents: DocumentStore) -> Document:
    location = await documents.write(f"{stored.tenant_id}/{stored.number}{_ENDINGS[media_type]}", content)
    return Document(stored.invoice_id, media_type, location, hashlib.sha256(content).hexdigest(), len(content))


async def _is_kept(document: Document, documents: DocumentStore) -> bool:
    content = await documents.read(document.location)
    return content is not None and hashlib.sha256(content).hexdigest() == document.sha256
