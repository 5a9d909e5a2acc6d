"""Builds the HTTP API from its dependencies."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from api.dependencies import Dependencies
from api.envelope import Envelope
from api.problems import add_problem_handlers
from api.routes.alerts import create_alert_router
from api.routes.bank import create_bank_router
from api.routes.dead_letters import create_dead_letter_router
from api.routes.deliveries import create_delivery_router
from api.routes.entitlements import create_entitlement_router
from api.routes.grants import create_grant_router
from api.routes.invoice_changes import create_invoice_change_router
from api.routes.invoices import create_invoice_router
from api.routes.operations import create_operations_router
from api.routes.payment_methods import create_payment_method_router
from api.routes.payments import create_payment_router
from api.routes.quotas import create_quota_router
from api.routes.reservations import create_reservation_router
from api.routes.tenants import create_tenant_router
from api.routes.usage import create_usage_router
from api.routes.usage_query import create_usage_query_router
from api.routes.webhooks import create_webhook_router

PREFIX = "/api/v1"


class MeterbookApi(FastAPI):
    """FastAPI with the envelope around all of it, error pages and body limit included."""

    def build_middleware_stack(self) -> ASGIApp:
        """Return the app as the server calls it."""
        return Envelope(super().build_middleware_stack())


def create_app(dependencies: Dependencies) -> FastAPI:
    """Return the app; whoever starts it opens and closes the dependencies."""
    app = MeterbookApi(
        title="Meterbook",
        version="1",
        summary="Usage in, live quotas and invoices out.",
        max_body_size=dependencies.body_max_bytes,
        # Routes answer for exact paths; a redirect would make clients repeat a POST.
        redirect_slashes=False,
    )
    add_problem_handlers(app)
    for create_router in (create_usage_router, create_quota_router, create_invoice_router, create_webhook_router):
        app.include_router(create_router(dependencies, PREFIX))
    # Where the earlier service had it: webhook endpoints are configured at the provider and hard to move.
    app.include_router(create_webhook_router(dependencies, ""), include_in_schema=False)
    app.include_router(create_invoice_change_router(dependencies, PREFIX))
    app.include_router(create_delivery_router(dependencies, PREFIX))
    app.include_router(create_payment_router(dependencies, PREFIX))
    app.include_router(create_payment_method_router(dependencies, PREFIX))
    app.include_router(create_bank_router(dependencies, PREFIX))
    app.include_router(create_dead_letter_router(dependencies, PREFIX))
    app.include_router(create_entitlement_router(dependencies, PREFIX))
    app.include_router(create_grant_router(dependencies, PREFIX))
    app.include_router(create_reservation_router(dependencies, PREFIX))
    app.include_router(create_usage_query_router(dependencies, PREFIX))
    app.include_router(create_alert_router(dependencies, PREFIX))
    app.include_router(create_tenant_router(dependencies, PREFIX))
    app.include_router(create_operations_router(dependencies))
    return app
