"""`POST /usage` and `POST /usage/batch`: 202 only after the broker has confirmed.

The hot path: raw bytes, one decode by msgspec, the very bytes that were judged go to the broker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import Dependencies
from api.domain.usage_request import Judge, ReadyEvent, read_id
from api.problems import UnsupportedMediaError, problem, refuse, refuse_unavailable, respond_json
from api.routes.usage_docs import BATCH_DOCS, EVENT_DOCS
from core.errors import UnavailableError
from core.event_time import to_microseconds
from core.usage_event import Rejection, split_batch

_EVENT_TYPE = "application/cloudevents+json"
_BATCH_TYPE = "application/cloudevents-batch+json"
_PLAIN_TYPE = "application/json"
_KEY_LENGTH_MAX = 200
# A refusal with one of these may only mean that our registry is a few seconds old.
_UNKNOWN = frozenset({"unknown_tenant", "unknown_meter"})


def create_usage_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes that take usage in."""
    router = APIRouter(prefix=prefix, tags=["usage"])
    intake = _Intake(dependencies)

    # A little more than the largest event, so that the refusal can say by how much it is too large.
    @router.post("/usage", openapi_extra=EVENT_DOCS, max_body_size=4 * dependencies.ingest_limits.max_bytes)
    async def take_event(request: Request) -> Response:
        """Take one usage event: a CloudEvent, or the plain form."""
        return await intake.take_event(request)

    @router.post("/usage/batch", openapi_extra=BATCH_DOCS)
    async def take_batch(request: Request) -> Response:
        """Take an array of usage events; good ones are accepted even if neighbours are refused."""
        return await intake.take_batch(request)

    return router


class _Intake:
    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies

    async def take_event(self, request: Request) -> Response:
        plain_allowed = _check_headers(request, _EVENT_TYPE)
        key = _idempotency_key(request)
        if isinstance(key, Rejection):
            return refuse(request.scope, key)
        raw = await request.body()
        # Made once: a second look at the event must not give it another name.
        event_id = key or self._dependencies.make_id()
        judge = await self._judge(newest=False)
        event = judge.read(raw, plain_allowed=plain_allowed, make_id=lambda: event_id)
        if isinstance(event, Rejection) and event.code in _UNKNOWN:
            judge = await self._judge(newest=True)
            event = judge.read(raw, plain_allowed=plain_allowed, make_id=lambda: event_id)
        if isinstance(event, Rejection):
            return refuse(request.scope, event)
        try:
            await self._dependencies.publisher.publish([(event.tenant, event.value)])
        except UnavailableError as error:
            # The id goes back, so that the caller can repeat an event that was named here.
            return refuse_unavailable(request.scope, error, id=event.event_id)
        return respond_json({"id": event.event_id, "status": "accepted"}, 202)

    async def take_batch(self, request: Request) -> Response:
        plain_allowed = _check_headers(request, _BATCH_TYPE)
        key = _idempotency_key(request)
        if isinstance(key, Rejection):
            return refuse(request.scope, key)
        raws = split_batch(await request.body())
        if isinstance(raws, Rejection):
            return refuse(request.scope, raws)
        most = self._dependencies.batch_max_events
        if not raws:
            return refuse(request.scope, Rejection("empty", "the batch holds no event"))
        if len(raws) > most:
            return refuse(request.scope, Rejection("too_large", f"{len(raws)} events, {most} are allowed in a batch"))
        events = await self._read_all(raws, plain_allowed=plain_allowed, key=key)
        results = [_result(index, event, raws[index]) for index, event in enumerate(events)]
        records: dict[str, list[bytes]] = defaultdict(list)
        for event in events:
            if isinstance(event, ReadyEvent):
                records[event.tenant].append(event.value)
        if not records:
            return problem(request.scope, 422, "all_refused", "every event of the batch was refused", results=results)
        try:
            # One record per tenant: the key decides the partition, and a tenant's events must meet on one.
            await self._dependencies.publisher.publish(
                [(tenant, b"[" + b",".join(values) + b"]") for tenant, values in records.items()]
            )
        except UnavailableError as error:
            ids = [event.event_id if isinstance(event, ReadyEvent) else None for event in events]
            return refuse_unavailable(request.scope, error, ids=ids)
        return respond_json({"results": results}, 202)

    async def _read_all(
        self, raws: list[bytes], *, plain_allowed: bool, key: str | None
    ) -> list[ReadyEvent | Rejection]:
        make_id = self._dependencies.make_id
        judge = await self._judge(newest=False)

        def names(index: int) -> Callable[[], str]:
            return make_id if key is None else lambda: f"{key}-{index}"

        events = [judge.read(raw, plain_allowed=plain_allowed, make_id=names(index)) for index, raw in enumerate(raws)]
        unknown = [i for i, event in enumerate(events) if isinstance(event, Rejection) and event.code in _UNKNOWN]
        if unknown:
            judge = await self._judge(newest=True)
            for index in unknown:
                events[index] = judge.read(raws[index], plain_allowed=plain_allowed, make_id=names(index))
        return events

    async def _judge(self, *, newest: bool) -> Judge:
        source = self._dependencies.registry
        registry = await (source.newest() if newest else source.current())
        return Judge(registry, self._dependencies.ingest_limits, to_microseconds(self._dependencies.clock.now()))


def _result(index: int, event: ReadyEvent | Rejection, raw: bytes) -> dict[str, Any]:
    if isinstance(event, ReadyEvent):
        return {"index": index, "id": event.event_id, "status": "accepted"}
    return {
        "index": index,
        "id": read_id(raw),
        "status": "refused",
        "code": event.code,
        "reason": event.reason,
        "pointer": f"/{index}{event.pointer}",
    }


def _check_headers(request: Request, structured: str) -> bool:
    """Return whether the plain form may come too; raises `UnsupportedMediaError`."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        # Not unpacked, so that nothing small can become large in here.
        raise UnsupportedMediaError(f"Content-Encoding {encoding[:40]!r} is not taken")
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    media = media.strip().lower()
    charset = parameters.partition("charset=")[2].strip().strip('"').lower()
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaError(f"JSON is UTF-8, not {charset[:40]!r}")
    if media not in (structured, _PLAIN_TYPE):
        raise UnsupportedMediaError(f"expected {structured} or {_PLAIN_TYPE}, got {media[:80]!r}")
    return media == _PLAIN_TYPE


def _idempotency_key(request: Request) -> str | Rejection | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    key = key.strip().strip('"')
    if not (0 < len(key) <= _KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
        return Rejection("invalid_field", f"Idempotency-Key must be 1 to {_KEY_LENGTH_MAX} printable characters")
    return key
