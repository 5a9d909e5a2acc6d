"""Stripe's error shape (API reference, "Errors"). Owns status, type, code and whether a result is kept for its key."""

from __future__ import annotations

from typing import Any


class StripeRefusal(Exception):  # noqa: N818  the word of this module: a refusal is an answer, not a fault of ours
    """An answer in Stripe's error shape.

    `executed` tells whether the endpoint had begun: only then is the answer kept for the idempotency key
    (API reference, "Idempotent requests": results are saved only after the execution of an endpoint begins).
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        executed: bool,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.executed = executed
        self.headers = headers or {}
        self.error: dict[str, Any] = {"message": message, "type": kind}
        if code is not None:
            self.error["code"] = code
            # Page "Error codes": every code has an anchor there, which Stripe links from the error.
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param is not None:
            self.error["param"] = param
        self.error.update({name: value for name, value in extra.items() if value is not None})

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": self.error}


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> StripeRefusal:
    """A parameter that fails validation: 400, not kept for the key."""
    return StripeRefusal(400, "invalid_request_error", message, code=code, param=param, executed=False)


def refused(
    message: str, *, code: str | None = None, param: str | None = None, status: int = 400, **extra: Any
) -> StripeRefusal:
    """A request that is well formed but impossible in the object's state: kept for the key."""
    return StripeRefusal(status, "invalid_request_error", message, code=code, param=param, executed=True, **extra)


def missing(kind: str, identity: str, param: str, *, in_path: bool) -> StripeRefusal:
    """An object that does not exist: 404 when the path names it, 400 when a parameter does (page "Error codes")."""
    message = f"No such {kind}: '{identity}'"
    return refused(message, code="resource_missing", param=param, status=404 if in_path else 400)


def unauthorized(message: str) -> StripeRefusal:
    """No valid API key: 401 (API reference, "Errors")."""
    return StripeRefusal(401, "invalid_request_error", message, executed=False)


def rate_limited(retry_after_seconds: int) -> StripeRefusal:
    """429. Page "Advanced error handling": rate limiters run before the idempotency layer, so nothing is kept."""
    return StripeRefusal(
        429,
        "invalid_request_error",
        "Request rate limit exceeded.",
        code="rate_limit",
        executed=False,
        headers={"Retry-After": str(retry_after_seconds)},
    )


def server_error() -> StripeRefusal:
    """500. API reference, "Idempotent requests": the same key gives the same result, including 500 errors."""
    return StripeRefusal(
        500,
        "api_error",
        "An unknown error occurred",
        executed=True,
        # The client library expects this header on most 500s, since a retry would only be replayed.
        headers={"Stripe-Should-Retry": "false"},
    )


def unavailable() -> StripeRefusal:
    """503 from in front of the API: nothing began, nothing is kept."""
    return StripeRefusal(503, "api_error", "The service is temporarily unavailable.", executed=False)


def key_in_use(key: str | None) -> StripeRefusal:
    """409. Page "Error codes", idempotency_key_in_use: the key is used by a request still in progress."""
    return StripeRefusal(
        409,
        "invalid_request_error",
        f"There is currently another in-progress request using this Idempotency-Key: {key}. Please try again later.",
        code="idempotency_key_in_use",
        executed=False,
    )


def key_reused(key: str, what: str) -> StripeRefusal:
    """400. API reference, "Errors": idempotency_error when a key is reused with another endpoint or parameters."""
    message = (
        f"Keys for idempotent requests can only be used {what}. "
        f"Try using a key other than '{key}' if you meant to execute a different request."
    )
    return StripeRefusal(400, "idempotency_error", message, executed=False)
