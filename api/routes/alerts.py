"""`/alerts`, `/alert-rules` and `/webhook-endpoints`: what was told, when people are told, and where webhooks go."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.dependencies import Dependencies
from api.problems import respond_json
from core.ids import TENANT_PATTERN

_ID = r"^[A-Za-z0-9_-]{1,64}$"
_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Path(pattern=_NAME)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RuleDocument(_Document):
    """A rule. Without a tenant it is for every tenant; without a meter for every meter, money then of all.

    `value` is percent of the limit, units of the meter, or money in `currency`; anomalies have none.
    """

    kind: Literal["percent", "units", "money", "anomaly"]
    value: str | int | None = Field(None, description="a decimal text; floats are not exact")
    currency: str | None = None
    tenant_id: str | None = None
    meter: str | None = None
    charge: str | None = None
    channels: list[Literal["slack", "email", "webhook"]] = Field(default_factory=list, description="empty: every one")
    enabled: bool = True


class EndpointDocument(_Document):
    """Where webhooks go; without a tenant those of every tenant."""

    url: str = Field(max_length=2_000)
    tenant_id: str | None = None
    event_types: list[str] = Field(default_factory=list, max_length=50, description="empty: every type")
    enabled: bool = True


def create_alert_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of alerts."""
    router = APIRouter(prefix=prefix, tags=["alerts"])
    desk = dependencies.alerts

    @router.get("/alerts")
    async def list_alerts(
        tenant_id: Annotated[str | None, Query(pattern=f"^{TENANT_PATTERN.pattern}$")] = None,
        kind: Annotated[Literal["quota", "spend", "anomaly"] | None, Query()] = None,
        status: Annotated[
            Literal["pending", "sent", "refused"] | None, Query(description="with a delivery in this state")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        starting_after: Annotated[
            str | None, Query(pattern=_ID, description="the last alert of the page before")
        ] = None,
    ) -> Response:
        """List alerts with their deliveries, newest first."""
        # One more than asked tells whether there are more.
        found = await desk.list_alerts(
            tenant=tenant_id, kind=kind, status=status, limit=limit + 1, starting_after=starting_after
        )
        return respond_json({"data": found[:limit], "has_more": len(found) > limit})

    @router.post("/alerts/{alert_id}/resend")
    async def resend_alert(alert_id: Annotated[str, Path(pattern=_ID)]) -> Response:
        """Send again what was not delivered; what was delivered is never sent twice."""
        return respond_json({"alert_id": alert_id, "deliveries": await desk.resend_alert(alert_id)}, 202)

    @router.get("/alert-rules")
    async def list_rules() -> Response:
        """List all rules; for each kind the most specific level that has any decides."""
        return respond_json({"data": await desk.list_rules()})

    @router.put("/alert-rules/{rule_id}")
    async def put_rule(rule_id: Name, rule: RuleDocument) -> Response:
        """Write a rule, in place of the one of its id."""
        return respond_json(await desk.put_rule(rule_id, rule.model_dump()))

    @router.delete("/alert-rules/{rule_id}", status_code=204)
    async def delete_rule(rule_id: Name) -> Response:
        """Remove a rule; what it said falls back to the next level."""
        await desk.delete_rule(rule_id)
        return Response(status_code=204)

    @router.get("/webhook-endpoints")
    async def list_endpoints() -> Response:
        """List the endpoints of outgoing webhooks, without their secrets."""
        return respond_json({"data": await desk.list_endpoints()})

    @router.put("/webhook-endpoints/{endpoint_id}", responses={201: {"description": "made; the secret is shown once"}})
    async def put_endpoint(endpoint_id: Name, endpoint: EndpointDocument) -> Response:
        """Write an endpoint; a new one's answer has its secret, this once."""
        answer = await desk.put_endpoint(endpoint_id, endpoint.model_dump())
        return respond_json(answer, 201 if "secret" in answer else 200, {"Cache-Control": "no-store"})

    @router.post("/webhook-endpoints/{endpoint_id}/rotate-secret")
    async def rotate_secret(endpoint_id: Name) -> Response:
        """Give an endpoint a new secret, shown this once; for a day messages are signed with both."""
        return respond_json(await desk.rotate_secret(endpoint_id), headers={"Cache-Control": "no-store"})

    return router
