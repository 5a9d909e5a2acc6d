"""`GET /invoices`, `GET /invoices/{id}` (JSON, PDF or XML by content negotiation), `GET /invoices/{id}/document`."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.ports import Document, OnlyADraftError
from api.problems import respond_json
from core.ids import TENANT_PATTERN

_PDF, _XML = "application/pdf", "application/xml"
# The e-invoice (EN 16931) in both its syntaxes; whoever just asks for XML gets UBL.
_TYPES = {"pdf": _PDF, "cii": f"{_XML};syntax=cii", "ubl": f"{_XML};syntax=ubl"}
_ID = r"^[A-Za-z0-9_-]{1,64}$"
Status = Literal["draft", "finalized", "paid", "overdue", "void", "uncollectible"]


def create_invoice_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes that show invoices."""
    router = APIRouter(prefix=prefix, tags=["invoices"])

    @router.get("/invoices")
    async def list_invoices(
        tenant_id: Annotated[str | None, Query(pattern=f"^{TENANT_PATTERN.pattern}$")] = None,
        status: Annotated[Status | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        starting_after: Annotated[
            str | None, Query(pattern=_ID, description="the last invoice of the page before")
        ] = None,
    ) -> Response:
        """List invoices, newest period first."""
        # One more than asked tells whether there are more.
        found = await dependencies.invoices.list_invoices(
            tenant=tenant_id, status=status, limit=limit + 1, starting_after=starting_after
        )
        return respond_json({"data": found[:limit], "has_more": len(found) > limit})

    @router.get("/invoices/{invoice_id}", responses={200: {"content": {_PDF: {}, _XML: {}}}})
    async def read_invoice(request: Request, invoice_id: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Return an invoice with its lines, or its PDF or e-invoice where `Accept` asks for PDF or XML."""
        wanted = _wanted(request.headers.get("accept", ""))
        if wanted is None:
            return respond_json(await dependencies.invoices.find_invoice(invoice_id), headers={"Vary": "Accept"})
        return _respond(await dependencies.invoices.find_document(invoice_id, _TYPES[wanted]), wanted)

    @router.get("/invoices/{invoice_id}/document", responses={200: {"content": {_PDF: {}, _XML: {}}}})
    async def read_document(
        invoice_id: Annotated[str, Path(pattern=_ID)],
        form: Annotated[Literal["pdf", "cii", "ubl"], Query(alias="format")] = "pdf",
    ) -> Response:
        """Return an invoice's document: the PDF (Factur-X), or the e-invoice as XML in CII or UBL.

        Of a draft there is a PDF that says on every page that it is none; nothing of it is kept.
        """
        try:
            return _respond(await dependencies.invoices.find_document(invoice_id, _TYPES[form]), form)
        except OnlyADraftError:
            if form != "pdf" or dependencies.documents is None:
                raise
            return _respond_draft(await dependencies.documents.draft_pdf(invoice_id), invoice_id)

    return router


def _respond(document: Document, form: str) -> Response:
    headers = {
        "Content-Disposition": f'inline; filename="{document.filename}"',
        "ETag": f'"{document.sha256}"',
        "Vary": "Accept",
        # What a browser shows of it reaches nothing.
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(document.content, 200, headers, _PDF if form == "pdf" else _XML)


def _respond_draft(content: bytes, invoice_id: str) -> Response:
    headers = {
        "Content-Disposition": f'inline; filename="{invoice_id}.draft.pdf"',
        # The next one may say something else.
        "Cache-Control": "no-store",
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, 200, headers, _PDF)


def _wanted(accept: str) -> str | None:
    """Return the form that is asked for by name, None if JSON is named before it or nothing is."""
    forms = {_PDF: "pdf", _XML: "ubl", "application/json": None}
    named = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    return next((forms[name] for name in named if name in forms), None)
