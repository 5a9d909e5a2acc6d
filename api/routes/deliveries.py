"""`POST /invoices/{reference}/deliveries`: has an issued document sent once more."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.json_body import need_key, read_json
from api.problems import respond_json
from core.errors import UnavailableError


class DeliveryBody(msgspec.Struct, forbid_unknown_fields=True):
    """Where to; without an address to the one that the document shows."""

    to: str | None = None


def create_delivery_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the route that sends documents."""
    router = APIRouter(prefix=prefix, tags=["invoices"])

    @router.post("/invoices/{reference}/deliveries", status_code=202)
    async def send_document(
        request: Request, reference: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    ) -> Response:
        """Have an invoice's or credit note's document sent once more, as a mail of its own; once per Idempotency-Key.

        202: it is on its way. Asked again with the same key it says how far it is.
        """
        key = need_key(request, "a mail")
        body = await read_json(request, DeliveryBody)
        if dependencies.documents is None:
            raise UnavailableError("documents are not sent by this process")
        return respond_json(await dependencies.documents.resend(reference, to=body.to, key=key), 202)

    return router
