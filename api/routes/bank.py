"""`/bank`: statements, what their entries may be for, and what a person says that they are for."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.dependencies import Dependencies
from api.json_body import need_key
from api.ports import BankClerk
from api.problems import respond_json
from core.errors import Fault, InvalidInputError, UnavailableError

# Who says so; users come with their names once there are users.
_BY = "api"
_Amount = Annotated[str, Field(pattern=r"^\d{1,18}(\.\d{1,6})?$", description="such as 12.50")]
Entry = Annotated[str, Path(pattern=r"^[A-Za-z0-9_]{1,64}$", description="the entry's id, or enough of its beginning")]


class InvoicePart(BaseModel):
    """An invoice that an entry pays, by number or id; without an amount, as much as is left and open."""

    model_config = ConfigDict(extra="forbid", strict=True)

    number: str = Field(min_length=1, max_length=64)
    amount: _Amount | None = None


class ConfirmDocument(BaseModel):
    """What an entry is for: what is proposed, invoices, what becomes of the rest, or an entry that it takes back."""

    model_config = ConfigDict(extra="forbid", strict=True)

    proposed: bool = Field(False, description="confirm the best proposal")
    invoices: list[InvoicePart] = Field(default=[], max_length=100, description="in the order in which they are served")
    fees_ours: bool = Field(False, description="what the last invoice is short of is bank fees, and we bear them")
    rest: Literal["open", "credit", "held"] = Field("open", description="what becomes of what is left")
    tenant_id: str | None = Field(None, max_length=64, description="whose the rest is, where no invoice tells")
    returns: str | None = Field(None, max_length=64, description="the entry that this one takes back")
    by: str = _BY


class RejectDocument(BaseModel):
    """Why an entry is none of ours."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str = Field(max_length=500)
    by: str = _BY


class ReopenDocument(BaseModel):
    """Who takes a rejection back."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by: str = _BY


def create_bank_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of the bank desk."""
    router = APIRouter(prefix=f"{prefix}/bank", tags=["bank"])

    @router.post(
        "/statements",
        status_code=201,
        openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    )
    async def import_statement(
        request: Request,
        file: Annotated[str, Query(min_length=1, max_length=200, description="its name, for faults and for later")],
        format: Annotated[
            Literal["camt053", "mt940", "csv"] | None, Query(description="told by the file otherwise")
        ] = None,
        profile: Annotated[str | None, Query(max_length=60, description="how a CSV is written: a shipped one")] = None,
        by: Annotated[str, Query(min_length=1, max_length=200)] = _BY,
    ) -> Response:
        """Take a bank statement in (the body is the file), whole or not at all.

        201 with its new entries; 200 where all of it was imported before.
        """
        content = await request.body()
        if not content:
            raise InvalidInputError([Fault("empty", "the body is empty: it is the file")])
        done = await _clerk(dependencies).import_file(content, file=file, format=format, profile=profile, by=by)
        return respond_json(done, 201 if any(one["new"] for one in done["statements"]) else 200)

    @router.get("/proposals")
    async def list_proposals(
        entry: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_]{1,64}$")] = None,
    ) -> Response:
        """List the entries that wait, with what they may be for: best first, with points and reasons."""
        return respond_json({"data": await _clerk(dependencies).list_proposals(entry)})

    @router.post("/entries/{entry}/confirm")
    async def confirm_entry(request: Request, entry: Entry, document: ConfirmDocument) -> Response:
        """Say what an entry is for; an Idempotency-Key is needed, and the same key again gets the same answer."""
        key = need_key(request, "a confirmation")
        said = document.model_dump(exclude={"by"})
        return respond_json(await _clerk(dependencies).confirm(entry, said, key=key, by=document.by))

    @router.post("/entries/{entry}/reject")
    async def reject_entry(entry: Entry, document: RejectDocument) -> Response:
        """Put an entry away that pays no invoice; again: nothing new."""
        return respond_json(await _clerk(dependencies).reject(entry, reason=document.reason, by=document.by))

    @router.post("/entries/{entry}/reopen")
    async def reopen_entry(entry: Entry, document: ReopenDocument) -> Response:
        """Take a rejection back; again: nothing new."""
        return respond_json(await _clerk(dependencies).reopen(entry, by=document.by))

    @router.get("/accounts")
    async def list_accounts() -> Response:
        """List accounts: until when their statements go, whether books and bank agree (`gap`), and what waits."""
        return respond_json({"data": await _clerk(dependencies).list_accounts()})

    return router


def _clerk(dependencies: Dependencies) -> BankClerk:
    if dependencies.bank is None:
        raise UnavailableError("bank statements are not taken here")
    return dependencies.bank
