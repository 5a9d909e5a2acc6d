"""What Stripe's errors mean. Owns which of them leave an outcome unknown, and which are an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import stripe

from core.errors import Fault, InvalidInputError, UnavailableError
from payments.domain.payment import AUTHENTICATION_REQUIRED, Outcome, PaymentStatus
from payments.domain.refund import RefundOutcome, RefundStatus
from payments.ports import ExhaustedKeyError, UnknownOutcomeError

# Page "Stripe decline codes": the issuer declined again because the authentication it had asked for was not done.
_AUTHENTICATION_NOT_HANDLED = "authentication_not_handled"


def read_refused_charge(error: stripe.StripeError) -> Outcome:
    """Return the outcome of a charge that Stripe refused, or raise if the refusal leaves it open.

    Raises `UnknownOutcomeError` and `ExhaustedKeyError`.
    """
    if isinstance(error, stripe.CardError) and not is_replayed_fault(error):
        return _read_decline(error)
    code, reason = _read_final_refusal(error)
    return Outcome(PaymentStatus.FAILED, None, None, code, reason)


def read_refused_refund(error: stripe.StripeError) -> RefundOutcome:
    """Return the outcome of a refund that Stripe refused, or raise as `read_refused_charge` does."""
    code, reason = _read_final_refusal(error)
    return RefundOutcome(RefundStatus.FAILED, None, None, code, reason)


def read_error(error: Any) -> tuple[str | None, str | None]:
    """Return code and sentence of a Stripe error object; the issuer's decline code stands in brackets.

    A decline for want of authentication is `authentication_required`, whatever error it comes with.
    """
    if not isinstance(error, Mapping):
        return None, None
    code, message, decline = (error.get(name) for name in ("code", "message", "decline_code"))
    kind = str(code or error.get("type") or "unknown_error")
    reason = str(message or kind)
    if decline in {AUTHENTICATION_REQUIRED, _AUTHENTICATION_NOT_HANDLED}:
        kind = AUTHENTICATION_REQUIRED
    return kind, f"{reason} ({decline})" if decline and decline != code else reason


def refuse(error: stripe.StripeError) -> NoReturn:
    """Raise for a call that charges nobody: `InvalidInputError` if Stripe refused it, else `UnavailableError`."""
    if isinstance(error, stripe.CardError | stripe.InvalidRequestError):
        code, reason = read_error(error_object(error))
        raise InvalidInputError([Fault(code or "refused_by_provider", reason or describe(error))]) from error
    raise UnavailableError(f"Stripe: {describe(error)}") from error


def is_missing(error: stripe.StripeError) -> bool:
    """Whether Stripe says that the object does not exist."""
    return isinstance(error, stripe.InvalidRequestError) and error.code == "resource_missing"


def error_object(error: stripe.StripeError) -> dict[str, Any]:
    """Return the `error` of the answer's body, empty if there is none."""
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def is_replayed_fault(error: stripe.StripeError) -> bool:
    """Whether this is a server error that Stripe stored for our key and repeats."""
    # API reference, "Idempotent requests": a stored result comes back with this header.
    headers = {str(name).lower(): str(value).lower() for name, value in dict(error.headers or {}).items()}
    return (error.http_status or 0) >= 500 and headers.get("idempotent-replayed") == "true"


def describe(error: stripe.StripeError) -> str:
    """Return a sentence for logs and people."""
    return f"{type(error).__name__} {error.http_status or 'without an answer'}: {error.user_message or error}"[:300]


def _read_final_refusal(error: stripe.StripeError) -> tuple[str, str]:
    status = error.http_status
    if is_replayed_fault(error):
        raise ExhaustedKeyError(f"Stripe repeats a stored error for this key: {describe(error)}") from error
    is_answer = isinstance(error, stripe.InvalidRequestError | stripe.CardError)
    if is_answer and status is not None and 400 <= status < 500 and status != 409:
        code, reason = read_error(error_object(error))
        return code or "invalid_request", reason or describe(error)
    # Timeouts, cut connections, 5xx, 409 (our first request still runs), 429, a wrong key of ours (401, 403), and
    # other parameters under our key (the tenant's method changed meanwhile): nothing is known of the outcome.
    raise UnknownOutcomeError(describe(error)) from error


def _read_decline(error: stripe.CardError) -> Outcome:
    body = error_object(error)
    code, reason = read_error(body)
    intent = body.get("payment_intent")
    reference = intent.get("id") if isinstance(intent, dict) else None
    waits = code == AUTHENTICATION_REQUIRED
    return Outcome(PaymentStatus.REQUIRES_ACTION if waits else PaymentStatus.FAILED, reference, None, code, reason)
