"""`GET /payments`, `GET /payments/{id}`, `POST /payments/{id}/refunds`, `GET /disputes`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.json_body import need_key, read_json
from api.ports import PaymentDesk
from api.problems import respond_json
from core.errors import UnavailableError
from core.ids import TENANT_PATTERN

_ID = r"^[A-Za-z0-9_-]{1,64}$"
Status = Literal["pending", "processing", "requires_action", "succeeded", "failed", "canceled"]


class RefundBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to go back: an amount in the payment's currency, or all that is left of it."""

    reason: str
    amount: Decimal | None = None


def create_payment_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of payments."""
    router = APIRouter(prefix=prefix, tags=["payments"])

    @router.get("/payments")
    async def list_payments(
        tenant_id: Annotated[str | None, Query(pattern=f"^{TENANT_PATTERN.pattern}$")] = None,
        invoice_id: Annotated[str | None, Query(pattern=_ID)] = None,
        status: Annotated[Status | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        starting_after: Annotated[
            str | None, Query(pattern=_ID, description="the last payment of the page before")
        ] = None,
    ) -> Response:
        """List payments, newest first."""
        found = await _desk(dependencies).list_payments(
            tenant=tenant_id, invoice=invoice_id, status=status, limit=limit + 1, starting_after=starting_after
        )
        return respond_json({"data": found[:limit], "has_more": len(found) > limit})

    @router.get("/payments/{payment_id}")
    async def read_payment(payment_id: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Return a payment with its refunds, its disputes and every change of them."""
        return respond_json(await _desk(dependencies).find_payment(payment_id))

    @router.post("/payments/{payment_id}/refunds", status_code=202)
    async def refund_payment(request: Request, payment_id: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Ask for a refund, in full or in part; it is made within seconds. The same Idempotency-Key asks once."""
        key = need_key(request, "a refund")
        body = await read_json(request, RefundBody)
        asked = await _desk(dependencies).ask_refund(
            payment_id, amount=body.amount, reason=body.reason, key=key, requested_by="api"
        )
        return respond_json(asked, 202)

    @router.get("/credit-notes/{reference}/refund")
    async def read_note_refund(reference: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Return how the refund of a credit note stands: `pending`, `done`, or `owed` because a refund failed."""
        return respond_json(await _desk(dependencies).find_note_refund(reference))

    @router.post("/credit-notes/{reference}/refund", status_code=202)
    async def refund_note(reference: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Refund a credit note whose credit is unused, or try again what failed; what is done stays as it is."""
        return respond_json(await _desk(dependencies).refund_note(reference, requested_by="api"), 202)

    @router.post("/credit-notes/{reference}/credit")
    async def credit_note_after_all(reference: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Give as a credit what could not be refunded of a credit note; again: nothing new."""
        return respond_json(await _desk(dependencies).credit_note_after_all(reference))

    @router.get("/refunds/owed")
    async def list_owed_refunds() -> Response:
        """List the credit notes whose refund failed, and that somebody must act on."""
        return respond_json({"data": await _desk(dependencies).list_owed_refunds()})

    @router.get("/disputes")
    async def list_disputes() -> Response:
        """List disputes that wait for evidence or a decision, the nearest deadline first."""
        return respond_json({"data": await _desk(dependencies).list_disputes()})

    return router


def _desk(dependencies: Dependencies) -> PaymentDesk:
    if dependencies.payments is None:
        raise UnavailableError("payments are not set up here")
    return dependencies.payments
