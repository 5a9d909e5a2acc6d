"""What is done to invoices: issue them on demand, sell once, credit, void, write off, issue anew."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.json_body import need_key, read_json, read_key
from api.ports import InvoiceDesk
from api.problems import respond_json
from core.errors import Fault, InvalidInputError, UnavailableError

# An id or a printed number.
_REFERENCE = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """Something sold once, in the tenant's currency."""

    description: str
    unit_amount: Decimal
    quantity: Decimal = Decimal(1)
    unit: str = ""


class InvoiceBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be invoiced: a period of the tenant's subscriptions, or items sold once."""

    tenant_id: str
    period: str | None = None
    items: list[Item] | None = None


class CreditBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be given back, with tax: an amount of the whole, or of lines by position (null: all that is left).

    With `refund`, what was paid goes back through its payments in place of a credit.
    """

    reason: str
    amount: Decimal | None = None
    lines: dict[str, Decimal | None] = {}
    refund: bool = False


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why."""

    reason: str


def create_invoice_change_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes that issue and change invoices; every one done again gives nothing new."""
    router = APIRouter(prefix=prefix, tags=["invoices"])

    @router.post("/invoices", status_code=201)
    async def issue_invoices(request: Request) -> Response:
        """Issue what a tenant owes for a period (`period`), or an invoice over `items`, once per Idempotency-Key.

        201 with the documents made, 200 with none where nothing new is owed.
        """
        body, desk = await read_json(request, InvoiceBody), _desk(dependencies)
        if (body.period is None) == (body.items is None):
            raise InvalidInputError([Fault("invalid_body", "name either a period or items", "period")])
        if body.items is not None:
            key = read_key(request) or dependencies.make_id()
            items = [msgspec.structs.asdict(item) for item in body.items]
            made = [await desk.sell_once(body.tenant_id, items, key=key)]
        else:
            made = await desk.invoice_now(body.tenant_id, body.period or "")
        return respond_json({"data": made}, 201 if made else 200)

    @router.post("/invoices/{reference}/credit-notes", status_code=201)
    async def credit_invoice(request: Request, reference: _REFERENCE) -> Response:
        """Give part of an invoice back, or all that is left of it; once per Idempotency-Key.

        With `refund`, the answer's `refund` says how that stands; it needs an Idempotency-Key.
        """
        body = await read_json(request, CreditBody)
        key = need_key(request, "a refund") if body.refund else read_key(request) or dependencies.make_id()
        lines = {_position(name): amount for name, amount in body.lines.items()}
        wish: dict[str, Any] = {"amount": body.amount, "lines": lines, "reason": body.reason, "key": key}
        if body.refund:
            made = await _desk(dependencies).credit_and_refund(reference, **wish, requested_by="api")
            return respond_json(made, 201)
        note = await _desk(dependencies).credit(reference, **wish)
        return respond_json(note, 201)

    @router.post("/invoices/{reference}/void")
    async def void_invoice(request: Request, reference: _REFERENCE) -> Response:
        """Let an invoice without money on it count as never billed; its number stays used."""
        body = await read_json(request, ReasonBody)
        return respond_json(await _desk(dependencies).void(reference, reason=body.reason))

    @router.post("/invoices/{reference}/write-off")
    async def write_off_invoice(request: Request, reference: _REFERENCE) -> Response:
        """Let an invoice be uncollectible; money that comes all the same is taken."""
        body = await read_json(request, ReasonBody)
        return respond_json(await _desk(dependencies).write_off(reference, reason=body.reason))

    @router.post("/invoices/{reference}/reissue")
    async def reissue_invoice(request: Request, reference: _REFERENCE) -> Response:
        """Take an invoice back and issue what is owed for its period now; returns what was made."""
        body = await read_json(request, ReasonBody)
        return respond_json({"data": await _desk(dependencies).reissue(reference, reason=body.reason)})

    return router


def _desk(dependencies: Dependencies) -> InvoiceDesk:
    if dependencies.invoice_desk is None:
        raise UnavailableError("invoices are not changed by this process")
    return dependencies.invoice_desk


def _position(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) <= 6):
        raise InvalidInputError([Fault("invalid_line", f"expected a position such as 4, got {name[:40]!r}", "lines")])
    return int(name)
