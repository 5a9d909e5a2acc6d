"""Errors as problem+json (RFC 9457). Owns which error family is which HTTP status; nobody else knows HTTP.

`code` is stable and for programs, `detail` for people, `errors` names each fault by JSON pointer. No stack trace, no
SQL, no address of ours ever leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from core.errors import ConflictError, Fault, InvalidInputError, MeterbookError, NotFoundError, UnavailableError
from core.usage_event import Rejection

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
REQUEST_ID_KEY = "meterbook.request_id"
log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
# Bodies that could not be read at all are 400, too large is 413, and what was read and refused is 422.
_STATUS_OF_CODE = {
    "empty": 400,
    "not_json": 400,
    "not_an_object": 400,
    "invalid_signature": 400,
    "invalid_encoding": 400,
    "too_large": 413,
    "unsupported_media_type": 415,
}
_CODE_OF_STATUS = {
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    500: "internal_error",
}


class UnsupportedMediaError(MeterbookError):
    """The body comes in a form that is not taken here."""

    code = "unsupported_media_type"


def status_of(code: str) -> int:
    """Return the HTTP status of a refused input with this code."""
    return _STATUS_OF_CODE.get(code, 422)


def respond_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Encode with msgspec; decimals become strings."""
    return Response(_encode(content), status, headers, "application/json")


def problem(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[dict[str, str]] = (),
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Response:
    """Build a problem+json response; `extra` are extension members."""
    body: dict[str, Any] = {
        "type": f"urn:meterbook:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": f"urn:uuid:{scope.get(REQUEST_ID_KEY, '00000000-0000-0000-0000-000000000000')}",
        "code": code,
        **extra,
    }
    if errors:
        body["errors"] = list(errors)
    if status in (429, 503):
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **(headers or {})}
    return Response(_encode(body), status, headers, MEDIA_TYPE)


def refuse(scope: Scope, rejection: Rejection) -> Response:
    """Answer a refused usage event."""
    error = {"pointer": rejection.pointer, "code": rejection.code, "detail": rejection.reason}
    return problem(scope, status_of(rejection.code), rejection.code, rejection.reason, errors=[error])


def refuse_unavailable(scope: Scope, error: UnavailableError, **extra: Any) -> Response:
    """Answer that something did not answer: 503 with Retry-After."""
    return problem(scope, 503, error.code, str(error), **extra)


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of a request end as problem+json."""
    app.add_exception_handler(MeterbookError, _handle_ours)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(RequestValidationError, _handle_parameters)
    app.add_exception_handler(Exception, _handle_unexpected)


async def _handle_ours(request: Request, error: Exception) -> Response:
    scope = request.scope
    match error:
        case InvalidInputError(faults=faults):
            code = faults[0].code if faults else error.code
            return problem(scope, status_of(code), code, str(error), errors=[_error(fault) for fault in faults])
        case NotFoundError():
            return problem(scope, 404, error.code, str(error))
        case ConflictError():
            return problem(scope, 409, error.code, str(error))
        case UnsupportedMediaError():
            return problem(scope, 415, error.code, str(error))
        case UnavailableError():
            return refuse_unavailable(scope, error)
    return await _handle_unexpected(request, error)


def _error(fault: Fault) -> dict[str, str]:
    pointer = "/" + fault.path.replace(".", "/") if fault.path and not fault.path.startswith("/") else fault.path
    return {"pointer": pointer, "code": fault.code, "detail": fault.reason}


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, "refused")
    headers = dict(error.headers) if error.headers else None
    return problem(request.scope, error.status_code, code, str(error.detail), headers=headers)


async def _handle_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "pointer": "/" + "/".join(str(part) for part in found["loc"]),
            "code": "invalid_parameter",
            "detail": str(found["msg"]),
        }
        for found in error.errors()
    ]
    names = ", ".join(str(found["loc"][-1]) for found in error.errors())
    return problem(request.scope, 422, "invalid_parameter", f"refused: {names}", errors=errors)


async def _handle_unexpected(request: Request, error: Exception) -> Response:
    log.error("request.failed", path=request.url.path, request_id=request.scope.get(REQUEST_ID_KEY), error=repr(error))
    return problem(request.scope, 500, "internal_error", "Something broke here; the Request-Id leads to the log.")
