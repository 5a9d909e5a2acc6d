"""An S3 that keeps objects in memory and checks every request's signature (AWS Signature Version 4).

The signature is worked out anew from the documentation's steps, with no code of the client's:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote

from aiohttp import web

from tests.standins.loopback import LoopbackServer

KEY, SECRET, REGION = "standin-key", "standin-secret", "eu-central-1"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<scope>[^,]+), ?SignedHeaders=(?P<headers>[^,]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


class S3StandIn:
    """The server and what it holds; `failures` requests are answered 503 first."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failures = 0
        self.refused = 0
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._server = LoopbackServer(app)

    @property
    def url(self) -> str:
        return self._server.url

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not _is_signed(request, body):
            self.refused += 1
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if self.failures:
            self.failures -= 1
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>")
        name = request.path
        if request.method == "PUT":
            self.objects[name] = body
            return web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if name not in self.objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": '"x"', "Last-Modified": "Tue, 03 Nov 2026 00:00:00 GMT"}
        return web.Response(body=self.objects[name], headers=headers)


def _is_signed(request: web.Request, body: bytes) -> bool:
    found = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if found is None or found["key"] != KEY:
        return False
    stamp, scope = request.headers["x-amz-date"], found["scope"]
    hashed = request.headers["x-amz-content-sha256"]
    if hashed not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
        return False
    names = found["headers"].split(";")
    if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
        return False
    canonical = "\n".join(
        (
            request.method,
            quote(request.path, safe="/-_.~"),
            "&".join(
                sorted(
                    f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in request.query.items()
                )
            ),
            "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in names),
            found["headers"],
            hashed,
        )
    )
    date, region, service, kind = scope.split("/")
    if (region, service, kind) != (REGION, "s3", "aws4_request"):
        return False
    key = f"AWS4{SECRET}".encode()
    for part in (date, region, service, kind):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), found["signature"])
