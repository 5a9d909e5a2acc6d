"""`POST /webhooks/stripe` and `/webhooks/paypal`: the raw body goes to whoever was handed in; here is only HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.problems import respond_json
from core.errors import NotFoundError

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

    @router.post("/webhooks/paypal", max_body_size=_BODY_MAX_BYTES)
    async def take_paypal_webhook(request: Request) -> Response:
        """Keep a signed PayPal event; its effect comes later."""
        if dependencies.paypal_webhooks is None:
            raise NotFoundError("payments by PayPal are not set up")
        # Read to the end before anything is said, as for a known provider.
        body = await request.body()
        await dependencies.paypal_webhooks.receive(body, dict(request.headers))
        return respond_json({"received": True})

    return router
