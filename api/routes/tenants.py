"""`/tenants`: who is billed, and what decides how they are taxed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.dependencies import Dependencies
from api.problems import respond_json
from core.ids import TENANT_PATTERN

TenantId = Annotated[str, Path(pattern=f"^{TENANT_PATTERN.pattern}$")]


class _Particulars(BaseModel):
    """What may be changed; left out stays as it is. An empty `vat_number` or `tax_exempt` takes it away."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    email: str | None = None
    country: str | None = Field(None, description="ISO 3166-1 alpha-2")
    address: str | None = Field(None, description="up to six lines")
    state: str | None = Field(None, description="without the country: CA")
    postal_code: str | None = None
    is_business: bool | None = None
    vat_number: str | None = None
    tax_exempt: str | None = Field(None, description="why no tax is charged, as it stands on invoices")
    tax_exempt_code: str | None = Field(None, description="the exemption's VATEX code")
    language: str | None = Field(None, description="of documents: en, es, pt, de")


class ChangeDocument(_Particulars):
    """A change of a tenant's particulars."""


class TenantDocument(_Particulars):
    """A new tenant."""

    tenant_id: str
    currency: str = Field(description="ISO 4217; for ever")
    time_zone: str | None = Field(None, description="IANA name; for ever")
    billing_anchor_day: int | None = Field(None, description="1 to 31; for ever")


def create_tenant_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of tenants."""
    router = APIRouter(prefix=prefix, tags=["tenants"])
    desk = dependencies.tenants
    if desk is None:
        return router

    @router.get("/tenants/{tenant_id}")
    async def read_tenant(tenant_id: TenantId) -> Response:
        """Return a tenant's particulars, and what VIES said of its VAT number."""
        return respond_json(await desk.find(tenant_id))

    @router.post("/tenants", status_code=201)
    async def add_tenant(document: TenantDocument) -> Response:
        """Create a tenant; the same again changes nothing and answers 200."""
        created, is_new = await desk.create(document.model_dump(exclude_none=True))
        return respond_json(created, 201 if is_new else 200)

    @router.patch("/tenants/{tenant_id}")
    async def change_tenant(tenant_id: TenantId, document: ChangeDocument) -> Response:
        """Change particulars; invoices that were issued keep the old ones, another VAT number is unchecked."""
        return respond_json(await desk.update(tenant_id, document.model_dump(exclude_none=True)))

    return router
