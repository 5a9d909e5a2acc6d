"""PayPal's REST API over httpx2. Owns the access token, and which answers leave the outcome unknown.

Source: PayPal's pages "Authentication" (token by client credentials, to be kept until it expires), "API responses",
"Idempotency" (a call that timed out or got a 5xx is repeated with the same PayPal-Request-Id) and "Rate limiting
guidelines" (429, RATE_LIMIT_REACHED). Why not the SDKs: docs/decisions/0030.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx2
import structlog

from core.clock import Clock
from payments.ports import UnknownOutcomeError

_TIMEOUT_SECONDS = 15
_TOKEN_PATH = "/v1/oauth2/token"  # noqa: S105  a path
# A token is renewed this long before it ends, so that none ends on the way.
_TOKEN_MARGIN = timedelta(seconds=60)
_TOKEN_LIFE_MAX = timedelta(hours=9)
# 408, 409 (the first request with this id still runs), 425 and 429 say nothing of the outcome; neither does a 5xx.
_UNDECIDED = frozenset({408, 409, 425, 429})
log = structlog.get_logger()


class PayPalRefusal(Exception):  # noqa: N818  the word of payments: a refusal is an answer
    """PayPal refused a request for good: 400, 403, 404 or 422 with its name and issue (page "API responses")."""

    def __init__(self, status: int, name: str, issue: str, description: str, debug_id: str) -> None:
        super().__init__(f"{status} {name} {issue}: {description} (debug id {debug_id})"[:400])
        self.status, self.name, self.issue, self.description = status, name, issue, description
        self.debug_id = debug_id

    @property
    def code(self) -> str:
        """Our code of it: the issue in lower case, as PayPal spells it (`order_not_approved`)."""
        return (self.issue or self.name or "refused_by_provider").lower()


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    renew_at: datetime


class PayPalClient:
    """One account's client; calls may run at once and share the token."""

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        api_base: str,
        clock: Clock,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._credentials = (client_id, client_secret)
        self._base = api_base.rstrip("/")
        self._clock = clock
        self._token: _Token | None = None
        self._renewing = asyncio.Lock()
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_seconds, connect=min(3, timeout_seconds)), follow_redirects=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get(self, *path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Show a resource. Raises `PayPalRefusal` and `UnknownOutcomeError`."""
        return await self._call("GET", _join(path), query=query)

    async def post(self, *path: str, body: Mapping[str, Any] | None, request_id: str) -> dict[str, Any]:
        """Do something once per `request_id`, and return the whole resource. Raises as `get`."""
        content = json.dumps(body if body is not None else {}).encode()
        headers = {"PayPal-Request-Id": request_id, "Prefer": "return=representation"}
        return await self._call("POST", _join(path), content=content, headers=headers)

    async def post_raw(self, *path: str, content: bytes) -> dict[str, Any]:
        """Post bytes that must arrive as they are. Raises as `get`."""
        return await self._call("POST", _join(path), content=content)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        token = await self._current_token(None)
        response = await self._send(method, path, token, content, headers, query)
        if response.status_code == 401:
            # Ended or withdrawn early. Nothing was carried out, so the same request may be sent again, once.
            token = await self._current_token(token)
            response = await self._send(method, path, token, content, headers, query)
        return _read(response, method, path)

    async def _send(
        self,
        method: str,
        path: str,
        token: _Token,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        query: Mapping[str, str] | None,
    ) -> httpx2.Response:
        sent = {"Authorization": f"Bearer {token.value}", "Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        try:
            return await self._http.request(
                method, self._base + path, content=content, headers=sent, params=dict(query) if query else None
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise UnknownOutcomeError(f"PayPal: no answer to {method} {path}: {error!r}"[:300]) from error

    async def _current_token(self, refused: _Token | None) -> _Token:
        """Return the token kept, or a new one if there is none, its time is over, or it is the `refused` one."""
        async with self._renewing:
            kept = self._token
            if kept is not None and kept is not refused and self._clock.now() < kept.renew_at:
                return kept
            self._token = None
            self._token = await self._fetch_token()
            return self._token

    async def _fetch_token(self) -> _Token:
        try:
            response = await self._http.post(
                self._base + _TOKEN_PATH,
                auth=self._credentials,
                data={"grant_type": "client_credentials"},
                headers={"Accept": "application/json"},
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise UnknownOutcomeError(f"PayPal: no answer to the request for a token: {error!r}"[:300]) from error
        found = _object(response)
        value, seconds = found.get("access_token"), found.get("expires_in")
        if response.status_code != 200 or not isinstance(value, str) or type(seconds) is not int:
            # The answer may quote the credentials: only its status is told. Nothing was carried out.
            log.error("paypal.no_token", status=response.status_code)
            raise UnknownOutcomeError(f"PayPal gave no access token: {response.status_code}")
        life = min(timedelta(seconds=max(0, seconds)), _TOKEN_LIFE_MAX)
        return _Token(value, self._clock.now() + max(life - _TOKEN_MARGIN, life / 2))


def _join(path: tuple[str, ...]) -> str:
    """Return the path; every part but the first is somebody's id and quoted."""
    return "/".join([path[0], *(quote(part, safe="") for part in path[1:])])


def _read(response: httpx2.Response, method: str, path: str) -> dict[str, Any]:
    status, debug_id = response.status_code, response.headers.get("paypal-debug-id", "")
    if 200 <= status < 300:
        try:
            body = json.loads(response.content) if response.content else {}
        except (ValueError, RecursionError) as error:
            raise UnknownOutcomeError(f"PayPal's answer to {method} {path} is no JSON ({debug_id})") from error
        if not isinstance(body, dict):
            raise UnknownOutcomeError(f"PayPal's answer to {method} {path} is no object ({debug_id})")
        return body
    found = _object(response)
    details = found.get("details")
    detail = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    name, issue = str(found.get("name") or ""), str(detail.get("issue") or "")
    description = str(detail.get("description") or found.get("message") or "")
    refusal = PayPalRefusal(status, name, issue, description, debug_id)
    in_progress = issue == "PREVIOUS_REQUEST_IN_PROGRESS"
    if status in {400, 403, 404, 422} and not in_progress:
        raise refusal
    # 401 twice means wrong credentials of ours; 429, 409 and 5xx leave it open.
    if status not in _UNDECIDED and status < 500 and not in_progress:
        log.error("paypal.refused", status=status, name=name, debug_id=debug_id)
    raise UnknownOutcomeError(f"PayPal, {method} {path}: {refusal}")


def _object(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
