"""What operators and orchestrators ask: `/health` (am I running), `/ready` (can I work), `/metrics`."""

from __future__ import annotations

import asyncio

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api.dependencies import Dependencies
from api.ports import ReadinessCheck
from api.problems import problem, respond_json

log = structlog.get_logger()


def create_operations_router(dependencies: Dependencies) -> APIRouter:
    """Return the routes for operators."""
    router = APIRouter(tags=["operations"])

    @router.get("/health")
    async def check_health() -> Response:
        """Say that the process answers; it asks nobody else, so an outage elsewhere never restarts it."""
        return respond_json({"status": "ok"})

    @router.get("/ready", responses={503: {"description": "names what is down"}})
    async def check_readiness(request: Request) -> Response:
        """Ask everything the API needs."""
        names = list(dependencies.checks)
        answers = await asyncio.gather(
            *(_check(name, dependencies.checks[name], dependencies.check_seconds) for name in names)
        )
        checks = {name: "up" if up else "down" for name, up in zip(names, answers, strict=True)}
        down = [name for name, state in checks.items() if state == "down"]
        if down:
            return problem(request.scope, 503, "not_ready", f"down: {', '.join(down)}", checks=checks)
        return respond_json({"status": "ready", "checks": checks})

    @router.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        """Return Prometheus' text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _check(name: str, check: ReadinessCheck, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await check()
    except Exception as error:
        # Whatever it is, the answer is the same: it is not there. The log says why.
        log.warning("readiness.down", dependency=name, error=repr(error))
        return False
    return True
