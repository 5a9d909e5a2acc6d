"""`/payment-methods`: what tenants pay by. Card and bank data are entered in the provider's own form, never here."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.dependencies import Dependencies
from api.json_body import need_key
from api.ports import MethodDesk
from api.problems import respond_json
from core.errors import UnavailableError
from core.ids import TENANT_PATTERN

_TENANT = f"^{TENANT_PATTERN.pattern}$"
_Kind = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
_Method = Annotated[str, Field(min_length=1, max_length=255)]
Provider = Literal["stripe", "paypal"]


class SetupDocument(BaseModel):
    """A method that is to be saved in the provider's form; of any kind that is offered if none is named."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tenant_id: str = Field(pattern=_TENANT)
    kinds: list[_Kind] = Field(default=[], max_length=10, description="such as card, sepa_debit")


class MethodDocument(BaseModel):
    """What the tenant pays by from now on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tenant_id: str = Field(pattern=_TENANT)
    provider: Provider = "stripe"
    method: _Method | None = Field(None, description="the provider's id of it; none for paypal")


class OwnerDocument(BaseModel):
    """Whose method it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tenant_id: str = Field(pattern=_TENANT)
    provider: Provider = "stripe"


def create_payment_method_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of saved methods."""
    router = APIRouter(prefix=f"{prefix}/payment-methods", tags=["payments"])

    @router.get("")
    async def list_methods(tenant_id: Annotated[str, Query(pattern=_TENANT)]) -> Response:
        """List what a tenant can pay by, at all providers; `is_default` is what invoices are paid by."""
        return respond_json({"tenant_id": tenant_id, "data": await _desk(dependencies).list_methods(tenant_id)})

    @router.post("/setups", status_code=201)
    async def begin_setup(request: Request, document: SetupDocument) -> Response:
        """Begin to save a method: the answer's `client_secret` opens the provider's form in the payer's browser.

        The same Idempotency-Key, which is needed, begins the same. A webhook of the provider's says that it is saved.
        """
        key = need_key(request, "a set-up")
        return respond_json(await _desk(dependencies).begin_setup(document.tenant_id, document.kinds, key=key), 201)

    @router.post("")
    async def set_method(document: MethodDocument) -> Response:
        """Save a method that the provider holds and let the tenant pay by it; again: nothing new."""
        desk = _desk(dependencies)
        return respond_json(await desk.set_method(document.tenant_id, document.provider, document.method))

    @router.post("/{method}/default")
    async def make_default(method: Annotated[str, Path(max_length=255)], document: OwnerDocument) -> Response:
        """Let the tenant pay by a saved method from now on; again: nothing new."""
        return respond_json(await _desk(dependencies).set_method(document.tenant_id, document.provider, method))

    @router.delete("/{method}", status_code=204)
    async def remove_method(
        method: Annotated[str, Path(max_length=255)],
        tenant_id: Annotated[str, Query(pattern=_TENANT)],
        provider: Annotated[Provider, Query()] = "stripe",
    ) -> Response:
        """Take a saved method away; the default only when it is the last one (409 `default_method`)."""
        await _desk(dependencies).remove_method(tenant_id, provider, method)
        return Response(status_code=204)

    return router


def _desk(dependencies: Dependencies) -> MethodDesk:
    if dependencies.methods is None:
        raise UnavailableError("payments are not set up here")
    return dependencies.methods
