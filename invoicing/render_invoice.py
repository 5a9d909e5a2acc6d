"""Makes an invoice's documents from its stored snapshot, once: bytes are kept first, then recorded, then sent.

What is recorded is never written over in silence: files that are gone are made anew, and compared before they are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
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


class Outcome(Enum):
    """What became of one file: it was as recorded, made first, made anew with the same bytes, or with other ones."""

    KEPT = "kept"
    MADE = "made"
    SAME_BYTES = "same_bytes"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Made:
    """A file of a document as it is recorded now."""

    document: Document
    outcome: Outcome


async def render_invoice(
    invoice_id: str,
    *,
    register: DocumentRegister,
    documents: DocumentStore,
    render: Render,
    clock: Clock,
    mark: Mark = "",
    by_mail: bool = False,
    replace: bool = False,
) -> list[Made]:
    """Return the invoice's files, the PDF first; only those are made that are not there as recorded, byte for byte.

    `mark` "void" makes the copy of a void invoice that says so. `by_mail` sends the documents to the buyer, once.
    `replace` makes all of them anew, and other bytes than the recorded ones take their place, under another name: as
    after a release of a library, or with fonts that were missing. Raises `InvalidInputError`: `unknown_invoice`;
    `rendering_failed` with the renderer's reason; `document_differs` where what was made anew has other bytes: then
    nothing is written. All for a person; the books need no document. A snapshot that is not what its hash says stops
    the work.
    """
    stored = await register.snapshot(invoice_id)
    if stored is None:
        raise InvalidInputError([Fault("unknown_invoice", f"no finalized invoice {invoice_id!r}", "invoice_id")])
    must_hold(digest_of(stored.snapshot) == stored.sha256, f"the snapshot of {stored.number} was changed")
    wanted = VOID_PDF_TYPE if mark else PDF_TYPE
    before = await register.documents(invoice_id)
    recorded = [one for one in (wanted, *([] if mark else (CII_TYPE, UBL_TYPE))) if one in before]
    kept = [] if replace else [one for one in recorded if await _is_kept(before[one], documents)]
    if wanted in kept and kept == recorded:
        return [Made(before[one], Outcome.KEPT) for one in kept]
    try:
        rendered = await render(stored.snapshot, mark)
    except RenderingFailedError as error:
        log.error("document.failed", invoice_id=invoice_id, number=stored.number, error=str(error))
        raise InvalidInputError([Fault(error.code, str(error), "invoice_id")]) from error
    _say_glyphs_missing(stored, rendered)
    files = {one: content for one, content in _files(rendered, wanted).items() if one not in kept}
    changed = [
        one for one in recorded if one not in kept and (one not in files or _sha256(files[one]) != before[one].sha256)
    ]
    if changed:
        _say_changed(stored, changed, before, files, replace=replace)
    made = [
        Made(
            await _keep(stored, one, content, documents, before.get(one), is_changed=one in changed),
            _outcome(one, before, changed),
        )
        for one, content in files.items()
    ]
    send_to = str(stored.snapshot["bill_to"]["email"]) if by_mail and not mark and stored.status != _VOID else None
    if made:
        await register.record([one.document for one in made], send_to=send_to or None, now=clock.now())
    log.info(
        "document.rendered",
        tenant=stored.tenant_id,
        number=stored.number,
        files={one.document.media_type: one.outcome.value for one in made},
        no_e_invoice=rendered.refusal,
    )
    both = [*(Made(before[one], Outcome.KEPT) for one in kept), *made]
    return sorted(both, key=lambda one: one.document.media_type != wanted)


def _outcome(media_type: str, before: Mapping[str, Document], changed: list[str]) -> Outcome:
    if media_type in changed:
        return Outcome.REPLACED
    return Outcome.SAME_BYTES if media_type in before else Outcome.MADE


def _say_changed(
    stored: StoredSnapshot,
    changed: list[str],
    before: Mapping[str, Document],
    files: Mapping[str, bytes],
    *,
    replace: bool,
) -> None:
    """Say that what was made anew is not what was recorded; refuse it unless it is to take its place."""
    digests = "; ".join(
        f"{one}: recorded {before[one].sha256}, made {_sha256(files[one]) if one in files else 'none any more'}"
        for one in changed
    )
    log.error("document.differs", tenant=stored.tenant_id, number=stored.number, digests=digests, replaced=replace)
    if not replace:
        reason = f"{stored.number} made anew has other bytes than recorded, so nothing was written ({digests})"
        raise InvalidInputError([Fault("document_differs", reason, "invoice_id")])


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


def _files(rendered: Rendered, wanted: str) -> dict[str, bytes]:
    files = {wanted: rendered.pdf}
    if rendered.e_invoice is not None:
        files |= {CII_TYPE: rendered.e_invoice.cii, UBL_TYPE: rendered.e_invoice.ubl}
    return files


async def _keep(
    stored: StoredSnapshot,
    media_type: str,
    content: bytes,
    documents: DocumentStore,
    before: Document | None,
    *,
    is_changed: bool,
) -> Document:
    """Write a file; one that takes the place of another gets its digest in its name, so that both are there."""
    name, ending, digest = f"{stored.tenant_id}/{stored.number}", _ENDINGS[media_type], _sha256(content)
    if is_changed or (before is not None and not before.location.endswith(f"/{stored.number}{ending}")):
        name = f"{name}.{digest[:12]}"
    location = await documents.write(f"{name}{ending}", content)
    return Document(stored.invoice_id, media_type, location, digest, len(content))


async def _is_kept(document: Document, documents: DocumentStore) -> bool:
    content = await documents.read(document.location)
    return content is not None and _sha256(content) == document.sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
