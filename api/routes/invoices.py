"""`GET /invoices` and `GET /invoices/{id}`: JSON, and the PDF by content negotiation."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.problems import respond_json
from core.ids import TENANT_PATTERN

_PDF = "application/pdf"
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

    @router.get("/invoices/{invoice_id}", responses={200: {"content": {_PDF: {}}}})
    async def read_invoice(request: Request, invoice_id: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Return an invoice with its lines, or its PDF where `Accept` asks for application/pdf."""
        if not _wants_pdf(request.headers.get("accept", "")):
            return respond_json(await dependencies.invoices.find_invoice(invoice_id), headers={"Vary": "Accept"})
        document = await dependencies.invoices.find_document(invoice_id, _PDF)
        headers = {
            "Content-Disposition": f'inline; filename="{document.filename}"',
            "ETag": f'"{document.sha256}"',
            "Vary": "Accept",
        }
        return Response(document.content, 200, headers, _PDF)

    return router


def _wants_pdf(accept: str) -> bool:
    """Say whether PDF is asked for by name and JSON is not named before it."""
    named = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    wanted = next((name for name in named if name in (_PDF, "application/json")), None)
    return wanted == _PDF
