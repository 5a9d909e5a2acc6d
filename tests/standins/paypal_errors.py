"""PayPal's error shape (page "API responses": name, message, debug_id, details with issue and description)."""

from __future__ import annotations

from typing import Any


class PayPalRefusal(Exception):  # noqa: N818  the word of this module: a refusal is an answer, not a fault of ours
    """An answer in PayPal's error shape."""

    def __init__(
        self, status: int, name: str, message: str, issue: str = "", description: str = "", field: str = ""
    ) -> None:
        super().__init__(f"{name} {issue}")
        self.status, self.name, self.issue = status, name, issue
        self.content: dict[str, Any] = {"name": name, "message": message}
        if issue:
            detail = {"issue": issue, "description": description}
            if field:
                detail |= {"field": field, "location": "body"}
            self.content["details"] = [detail]


def malformed(issue: str, description: str, field: str = "") -> PayPalRefusal:
    """400: the request violates the schema."""
    message = "Request is not well-formed, syntactically incorrect, or violates schema."
    return PayPalRefusal(400, "INVALID_REQUEST", message, issue, description, field)


def unprocessable(issue: str, description: str, field: str = "") -> PayPalRefusal:
    """422: well formed and impossible."""
    message = "The requested action could not be performed, semantically incorrect, or failed business validation."
    return PayPalRefusal(422, "UNPROCESSABLE_ENTITY", message, issue, description, field)


def missing() -> PayPalRefusal:
    """404."""
    text = "Specified resource ID does not exist. Please check the resource ID and try again."
    return PayPalRefusal(
        404, "RESOURCE_NOT_FOUND", "The specified resource does not exist.", "INVALID_RESOURCE_ID", text
    )


def in_progress() -> PayPalRefusal:
    """409 (Payments v2, PREVIOUS_REQUEST_IN_PROGRESS); page "Idempotency": two at once, the second might fail."""
    text = "A previous request on this resource is currently in progress. Please wait for sometime and try again."
    return PayPalRefusal(
        409, "RESOURCE_CONFLICT", "The server has detected a conflict.", "PREVIOUS_REQUEST_IN_PROGRESS", text
    )


def rate_limited() -> PayPalRefusal:
    """429 (page "Rate limiting guidelines"); its body has no details."""
    return PayPalRefusal(429, "RATE_LIMIT_REACHED", "Too many requests. Blocked due to rate limiting.")


def server_error() -> PayPalRefusal:
    """500: may or may not have been carried out (page "Idempotency": to be repeated with the same id)."""
    return PayPalRefusal(500, "INTERNAL_SERVER_ERROR", "An internal server error has occurred.")


def unavailable() -> PayPalRefusal:
    """503."""
    return PayPalRefusal(503, "SERVICE_UNAVAILABLE", "Service Unavailable.")
