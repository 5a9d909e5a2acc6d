"""`POST /usage`, `/usage/batch` and the corrections: 202 only after the broker has confirmed.

The hot path: raw bytes, one decode by msgspec, the very bytes that were judged go to the broker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from api.dependencies import Dependencies
from api.domain.unpack_body import ENCODINGS, unpack_body
from api.domain.usage_request import Judge, ReadyUsage, read_id
from api.problems import UnsupportedMediaError, problem, refuse, refuse_unavailable, respond_json, status_of
from api.routes.usage_docs import AMEND_DOCS, BACKFILL_DOCS, BATCH_DOCS, EVENT_DOCS, VOID_DOCS
from core.errors import UnavailableError
from core.event_time import to_microseconds
from core.input_forms.binary import read_binary_request
from core.input_forms.fields import Refusal
from core.usage_event import AMEND, BACKFILL, VOID, IngestLimits, Rejection, split_batch

_EVENT_TYPE = "application/cloudevents+json"
_BATCH_TYPE = "application/cloudevents-batch+json"
_JSON_TYPE = "application/json"
_KEY_LENGTH_MAX = 200
# A refusal with one of these may only mean that our registry is a few seconds old.
_UNKNOWN = frozenset({"unknown_tenant", "unknown_meter"})
Read = Callable[[Judge], ReadyUsage | Refusal]


class _BytesRoute(APIRoute):
    """Hands the request to its endpoint as it is: none declares parameters, and solving none takes its time too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def create_usage_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes that take usage in."""
    router = APIRouter(prefix=prefix, tags=["usage"], route_class=_BytesRoute)
    intake = _Intake(dependencies)
    # A little more than the largest event, so that the refusal can say by how much it is too large.
    single_max = 4 * dependencies.ingest_limits.max_bytes

    @router.post("/usage", status_code=202, openapi_extra=EVENT_DOCS, max_body_size=single_max)
    async def take_event(request: Request) -> Response:
        """Take one usage: a CloudEvent, structured or binary, or any other input form."""
        return await intake.take_event(request, single_max)

    # As the earlier service called it, in both its languages.
    for alias in ("/usage/report", "/uso"):
        router.post(alias, max_body_size=single_max, include_in_schema=False)(take_event)

    @router.post("/usage/batch", status_code=202, openapi_extra=BATCH_DOCS)
    async def take_batch(request: Request) -> Response:
        """Take an array of usage; good ones are accepted even if neighbours are refused."""
        return await intake.take_batch(request, dependencies.body_max_bytes)

    @router.post("/usage/void", status_code=202, openapi_extra=VOID_DOCS, max_body_size=single_max)
    async def void_event(request: Request) -> Response:
        """Take an event out: it counts no more, and stays on record with the reason."""
        return await intake.take_correction(request, VOID, single_max)

    @router.post("/usage/amend", status_code=202, openapi_extra=AMEND_DOCS, max_body_size=single_max)
    async def amend_event(request: Request) -> Response:
        """Replace what an event counts."""
        return await intake.take_correction(request, AMEND, single_max)

    @router.post("/usage/backfill", status_code=202, openapi_extra=BACKFILL_DOCS, max_body_size=single_max)
    async def backfill_usage(request: Request) -> Response:
        """Add events of a past range, however long ago it was."""
        return await intake.take_correction(request, BACKFILL, single_max)

    return router


class _Intake:
    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies

    async def take_event(self, request: Request, max_bytes: int) -> Response:
        key = _idempotency_key(request)
        if isinstance(key, Rejection):
            return refuse(request.scope, key)
        is_binary = _has_attributes(request)
        forms_allowed = False if is_binary else _check_media(request, _EVENT_TYPE)
        raw = await _body(request, max_bytes)
        if is_binary and not isinstance(raw, Rejection):
            structured = read_binary_request(request.headers.raw, raw)
            raw = raw if structured is None else structured
        if isinstance(raw, Rejection):
            return refuse(request.scope, raw)
        body, make_id = raw, self._names(key)
        return await self._take(request, lambda judge: judge.read(body, forms_allowed=forms_allowed, make_id=make_id))

    async def take_correction(self, request: Request, event_type: str, max_bytes: int) -> Response:
        key = _idempotency_key(request)
        if isinstance(key, Rejection):
            return refuse(request.scope, key)
        _check_media(request, _JSON_TYPE)
        raw = await _body(request, max_bytes)
        if isinstance(raw, Rejection):
            return refuse(request.scope, raw)
        body, make_id = raw, self._names(key)
        return await self._take(request, lambda judge: judge.read_correction(event_type, body, make_id()))

    async def take_batch(self, request: Request, max_bytes: int) -> Response:
        key = _idempotency_key(request)
        if isinstance(key, Rejection):
            return refuse(request.scope, key)
        if _has_attributes(request):
            why = "an array of events has no ce- headers of its own; binary mode is for one event"
            return refuse(request.scope, Rejection("ambiguous_mode", why))
        forms_allowed = _check_media(request, _BATCH_TYPE)
        body = await _body(request, max_bytes)
        if isinstance(body, Rejection):
            return refuse(request.scope, body)
        most = self._dependencies.batch_max_events
        judge = await self._judge(newest=False)
        batch = judge.read_at_once(body, most)
        if batch is not None:
            # The array as it came is the record: all of it was judged, and it is one tenant's.
            try:
                await self._dependencies.publisher.publish([(batch.tenant, body)])
            except UnavailableError as error:
                return refuse_unavailable(request.scope, error, ids=batch.ids)
            results = [{"index": index, "id": name, "status": "accepted"} for index, name in enumerate(batch.ids)]
            return respond_json({"results": results}, 202)
        raws = split_batch(body)
        if isinstance(raws, Rejection):
            return refuse(request.scope, raws)
        if not raws:
            return refuse(request.scope, Rejection("empty", "the batch holds no event"))
        if len(raws) > most:
            return refuse(request.scope, Rejection("too_large", f"{len(raws)} events, {most} are allowed in a batch"))
        return await self._take_each(request, judge, raws, forms_allowed=forms_allowed, key=key)

    async def _take(self, request: Request, read: Read) -> Response:
        usage = read(await self._judge(newest=False))
        if _may_be_known_by_now(usage):
            usage = read(await self._judge(newest=True))
        if isinstance(usage, Refusal):
            return _refuse_all(request, usage)
        record = usage.values[0] if len(usage.values) == 1 else _array(usage.values)
        try:
            await self._dependencies.publisher.publish([(usage.tenant, record)])
        except UnavailableError as error:
            # The id goes back, so that the caller can repeat usage that was named here.
            return refuse_unavailable(request.scope, error, id=usage.usage_id)
        return respond_json(_accepted(usage), 202)

    async def _take_each(
        self, request: Request, judge: Judge, raws: list[bytes], *, forms_allowed: bool, key: str | None
    ) -> Response:
        names = [self._names(None if key is None else f"{key}-{index}") for index in range(len(raws))]

        def read(judge: Judge, index: int) -> ReadyUsage | Refusal:
            return judge.read(raws[index], forms_allowed=forms_allowed, make_id=names[index])

        found = [read(judge, index) for index in range(len(raws))]
        unknown = [index for index, usage in enumerate(found) if _may_be_known_by_now(usage)]
        if unknown:
            judge = await self._judge(newest=True)
            for index in unknown:
                found[index] = read(judge, index)
        results = [_result(index, usage, raws[index]) for index, usage in enumerate(found)]
        records = _records(
            [usage for usage in found if isinstance(usage, ReadyUsage)], self._dependencies.ingest_limits
        )
        if not records:
            return problem(request.scope, 422, "all_refused", "every event of the batch was refused", results=results)
        try:
            await self._dependencies.publisher.publish(records)
        except UnavailableError as error:
            ids = [usage.usage_id if isinstance(usage, ReadyUsage) else None for usage in found]
            return refuse_unavailable(request.scope, error, ids=ids)
        return respond_json({"results": results}, 202)

    def _names(self, name: str | None) -> Callable[[], str]:
        """Return what names usage that brings no id: always the same name, made only if it is needed."""
        made: list[str] = [] if name is None else [name]

        def make() -> str:
            if not made:
                made.append(self._dependencies.make_id())
            return made[0]

        return make

    async def _judge(self, *, newest: bool) -> Judge:
        dependencies = self._dependencies
        registry = await (dependencies.registry.newest() if newest else dependencies.registry.current())
        received_us = to_microseconds(dependencies.clock.now())
        return Judge(registry, dependencies.ingest_limits, dependencies.input_forms, received_us)


def _records(accepted: list[ReadyUsage], limits: IngestLimits) -> list[tuple[str, bytes]]:
    """Return records per tenant: the key decides the partition, and a tenant's events must meet on one.

    No record is larger than the stream takes an array to be. A backfill is a record of its own, behind the others.
    """
    together: dict[str, list[list[bytes]]] = defaultdict(list)
    sizes: dict[str, int] = {}
    alone: list[tuple[str, bytes]] = []
    for usage in accepted:
        tenant = usage.tenant
        for value in usage.values:
            if usage.is_alone:
                alone.append((tenant, value))
                continue
            arrays = together[tenant]
            # Two brackets, and a comma per event.
            sizes[tenant] = sizes.get(tenant, 1) + len(value) + 1
            if not arrays or sizes[tenant] > limits.max_batch_bytes or len(arrays[-1]) == limits.max_batch_events:
                arrays.append([])
                sizes[tenant] = len(value) + 2
            arrays[-1].append(value)
    return [(tenant, _array(values)) for tenant, arrays in together.items() for values in arrays] + alone


def _array(values: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(values) + b"]"


def _accepted(usage: ReadyUsage) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": usage.usage_id, "status": "accepted"}
    if usage.form is not None:
        # What it became: the names under which it can be corrected, and what is counted.
        answer["form"] = usage.form
        answer["events"] = [msgspec.Raw(value) for value in usage.values]
    return answer


def _result(index: int, usage: ReadyUsage | Refusal, raw: bytes) -> dict[str, Any]:
    if isinstance(usage, ReadyUsage):
        return {"index": index, **_accepted(usage)}
    first, *others = usage.faults
    result: dict[str, Any] = {
        "index": index,
        "id": read_id(raw),
        "status": "refused",
        "code": first.code,
        "reason": first.reason,
        "pointer": f"/{index}{first.pointer}",
    }
    if others:
        result["errors"] = [_error(fault, f"/{index}") for fault in usage.faults]
    return result


def _refuse_all(request: Request, refusal: Refusal) -> Response:
    first = refusal.faults[0]
    errors = [_error(fault) for fault in refusal.faults]
    return problem(request.scope, status_of(first.code), first.code, first.reason, errors=errors)


def _error(fault: Rejection, within: str = "") -> dict[str, str]:
    return {"pointer": within + fault.pointer, "code": fault.code, "detail": fault.reason}


def _may_be_known_by_now(usage: ReadyUsage | Refusal) -> bool:
    return isinstance(usage, Refusal) and any(fault.code in _UNKNOWN for fault in usage.faults)


def _has_attributes(request: Request) -> bool:
    return any(name.startswith(b"ce-") for name, _ in request.headers.raw)


def _check_media(request: Request, wanted: str) -> bool:
    """Return whether other forms than the wanted one may come too; raises `UnsupportedMediaError`."""
    given = request.headers.get("content-type", "")
    if given == wanted:
        return given == _JSON_TYPE
    media, _, parameters = given.partition(";")
    media = media.strip().lower()
    charset = parameters.partition("charset=")[2].strip().strip('"').lower()
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaError(f"JSON is UTF-8, not {charset[:40]!r}")
    if media not in (wanted, _JSON_TYPE):
        taken = wanted if wanted == _JSON_TYPE else f"{wanted} or {_JSON_TYPE}"
        raise UnsupportedMediaError(f"expected {taken}, got {media[:80]!r}")
    return media == _JSON_TYPE


async def _body(request: Request, max_bytes: int) -> bytes | Rejection:
    """Return the body, unpacked; raises `UnsupportedMediaError` for an encoding that is not taken."""
    encoding = request.headers.get("content-encoding")
    if encoding is None:
        return await request.body()
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return await request.body()
    if encoding not in ENCODINGS:
        raise UnsupportedMediaError(f"Content-Encoding {encoding[:40]!r} is not taken; gzip and zstd are")
    return unpack_body(await request.body(), encoding, max_bytes)


def _idempotency_key(request: Request) -> str | Rejection | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    key = key.strip().strip('"')
    if not (0 < len(key) <= _KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
        return Rejection("invalid_field", f"Idempotency-Key must be 1 to {_KEY_LENGTH_MAX} printable characters")
    return key
