"""`POST /webhooks/stripe`: the raw body goes to whoever the entry point handed in; here is only HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.problems import respond_json

_BODY_MAX_BYTES = 512 * 1024


def create_webhook_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes that providers call."""
    router = APIRouter(prefix=prefix, tags=["webhooks"])

    @router.post("/webhooks/stripe", max_body_size=_BODY_MAX_BYTES)
    async def take_stripe_webhook(request: Request) -> Response:
        """Keep a signed Stripe event; its effect comes later."""
        body = await request.body()
        await dependencies.stripe_webhooks.receive(body, request.headers.get("stripe-signature"))
        return respond_json({"received": True})

    return router
