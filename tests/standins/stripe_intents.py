"""PaymentIntents and their charges (API reference, "PaymentIntents"; page "PaymentIntent lifecycle").

Owns the states of a PaymentIntent and when money moves.
"""

from __future__ import annotations

import copy
import re

from tests.standins.stripe_account import Account, Cause, now
from tests.standins.stripe_amounts import read_amount, read_currency
from tests.standins.stripe_cards import AUTHENTICATION_REQUIRED, Card, Decline, needs_authentication
from tests.standins.stripe_disputes import open_dispute
from tests.standins.stripe_errors import StripeRefusal, invalid, missing, refused
from tests.standins.stripe_params import (
    PAGING,
    Params,
    check_known,
    created_matches,
    merge_metadata,
    page,
    read_flag,
    require,
)

_DESCRIPTIVE = ("description", "receipt_email", "statement_descriptor", "statement_descriptor_suffix")
_COMMON = {*_DESCRIPTIVE, "metadata", "payment_method", "payment_method_types", "setup_future_usage"}
_CONFIRM = {"payment_method", "off_session", "error_on_requires_action", "return_url", "receipt_email",
            "setup_future_usage", "payment_method_types"}  # fmt: skip
_CREATE = _COMMON | _CONFIRM | {
    "amount", "currency", "customer", "confirm", "automatic_payment_methods", "capture_method", "confirmation_method",
}  # fmt: skip
_OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")


def create_intent(account: Account, params: Params, cause: Cause) -> Params:
    """Create a PaymentIntent; with `confirm=true` it is confirmed in the same request."""
    check_known(params, _CREATE)
    currency = read_currency(require(params, "currency"))
    amount = read_amount(require(params, "amount"), currency)
    metadata = merge_metadata({}, params)
    confirm = read_flag(params, "confirm")
    if not confirm:
        for name in ("off_session", "error_on_requires_action", "return_url"):
            if name in params:  # API reference, PaymentIntent create: can only be used with confirm=true.
                raise invalid(f"You can only use `{name}` with `confirm` set to true.", param=name)
    _check_methods(params)
    customer = account.customer(params["customer"])["id"] if "customer" in params else None
    identity = account.new_id("pi")
    intent = _new_intent(identity, amount, currency, customer, metadata, params)
    if confirm:
        _check_return_url(intent, params)
    if "payment_method" in params:
        _use_payment_method(account, intent, params["payment_method"])
    if confirm and intent["payment_method"] is None:
        raise invalid("You must provide a payment method to confirm.", param="payment_method", code="parameter_missing")
    account.payment_intents[identity] = intent
    account.record("payment_intent.created", intent, cause)
    return _attempt(account, intent, params, cause) if confirm else intent


def _new_intent(
    identity: str, amount: int, currency: str, customer: str | None, metadata: dict[str, str], params: Params
) -> Params:
    automatic = params.get("automatic_payment_methods")
    if automatic is None and "payment_method_types" not in params:
        automatic = {"enabled": "true"}
    redirects = automatic.get("allow_redirects", "always") if isinstance(automatic, dict) else "always"
    intent: Params = {
        "id": identity,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": 0,
        "automatic_payment_methods": automatic and {"allow_redirects": redirects, "enabled": True},
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": params.get("capture_method", "automatic_async"),
        "client_secret": f"{identity}_secret_standin",
        "confirmation_method": "automatic",
        "created": now(),
        "currency": currency,
        "customer": customer,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": metadata,
        "next_action": None,
        "payment_method": None,
        "payment_method_types": ["card"],
        "processing": None,
        "setup_future_usage": params.get("setup_future_usage"),
        "status": "requires_payment_method",
    }
    for name in _DESCRIPTIVE:
        intent[name] = params.get(name) or None
    return intent


def _check_methods(params: Params) -> None:
    """Refuse what the stand-in cannot act out: other payment methods than cards, manual capture or confirmation."""
    if params.get("payment_method_types", ["card"]) != ["card"]:
        raise invalid("The stand-in knows payment_method_types ['card'] only", param="payment_method_types")
    if params.get("capture_method", "automatic") not in ("automatic", "automatic_async"):
        raise invalid("The stand-in captures automatically only", param="capture_method")
    if params.get("confirmation_method", "automatic") != "automatic":
        raise invalid("The stand-in confirms automatically only", param="confirmation_method")
    if params.get("setup_future_usage", "off_session") not in ("", "off_session", "on_session"):
        raise invalid("Invalid setup_future_usage", param="setup_future_usage")
    if "automatic_payment_methods" in params and "payment_method_types" in params:
        message = "You may only specify one of these parameters: automatic_payment_methods, payment_method_types."
        raise invalid(message)


def _check_return_url(intent: Params, params: Params) -> None:
    # API reference, PaymentIntent `return_url`, and the error Stripe gives since API version 2023-08-16: methods from
    # the Dashboard may redirect, so an on-session confirmation needs a place to come back to.
    automatic = intent["automatic_payment_methods"]
    may_redirect = automatic is not None and automatic["allow_redirects"] == "always"
    if may_redirect and "return_url" not in params and not read_flag(params, "off_session"):
        raise invalid(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of "
            "these payment methods might redirect your customer off of your page, you must provide a `return_url`. If "
            "you don't want to accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to "
            "`true` and `automatic_payment_methods[allow_redirects]` to `never` when creating PaymentIntents.",
            param="return_url",
        )


def _use_payment_method(account: Account, intent: Params, identity: str) -> None:
    method = account.payment_method(identity)
    if method["customer"] is not None and method["customer"] != intent["customer"]:
        message = f"The provided PaymentMethod {method['id']} belongs to another customer than this PaymentIntent."
        raise refused(message, code="payment_method_unexpected_state", param="payment_method")
    intent["payment_method"] = method["id"]
    if intent["status"] == "requires_payment_method":
        intent["status"] = "requires_confirmation"


def update_intent(account: Account, params: Params, _: Cause, identity: str) -> Params:
    """Change a PaymentIntent; amount, customer and method only while it is open (page "PaymentIntent lifecycle")."""
    check_known(params, _COMMON | {"amount", "currency", "customer"})
    intent = retrieve_intent(account, {}, identity)
    _check_methods(params)
    metadata = merge_metadata(intent["metadata"], params)
    if intent["status"] not in _OPEN and set(params) - {"metadata", "description", "expand"}:
        raise _wrong_state(intent, "updated")
    currency = read_currency(params.get("currency", intent["currency"]))
    amount = read_amount(params.get("amount", str(intent["amount"])), currency)
    if "customer" in params:
        intent["customer"] = account.customer(params["customer"])["id"]
    if "payment_method" in params:
        _use_payment_method(account, intent, params["payment_method"])
    intent.update(amount=amount, currency=currency)
    for name in _DESCRIPTIVE:
        if name in params:
            intent[name] = params[name] or None
    intent["metadata"] = metadata
    return intent


def confirm_intent(account: Account, params: Params, cause: Cause, identity: str) -> Params:
    """Confirm a PaymentIntent: the attempt to take the money."""
    check_known(params, _CONFIRM)
    _check_methods(params)
    intent = retrieve_intent(account, {}, identity)
    if intent["status"] == "requires_action" and "payment_method" in params:
        intent["next_action"] = None
    elif intent["status"] not in ("requires_payment_method", "requires_confirmation"):
        raise _wrong_state(intent, "confirmed")
    _check_return_url(intent, params)
    if "payment_method" in params:
        _use_payment_method(account, intent, params["payment_method"])
    if intent["payment_method"] is None:
        message = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise refused(message, code="payment_intent_unexpected_state", payment_intent=copy.deepcopy(intent))
    if "setup_future_usage" in params:
        intent["setup_future_usage"] = params["setup_future_usage"] or None
    return _attempt(account, intent, params, cause)


def _wrong_state(intent: Params, verb: str) -> StripeRefusal:
    message = f"This PaymentIntent could not be {verb} because it has a status of {intent['status']}."
    return refused(message, code="payment_intent_unexpected_state", payment_intent=copy.deepcopy(intent))


def _attempt(account: Account, intent: Params, params: Params, cause: Cause) -> Params:
    off_session = read_flag(params, "off_session")
    card = account.cards[intent["payment_method"]]
    set_up = intent["payment_method"] in account.set_up
    if needs_authentication(card, set_up=set_up, off_session=off_session):
        if off_session or read_flag(params, "error_on_requires_action"):
            # Page "Save and reuse": an off-session payment that needs authentication fails with 402, code
            # authentication_required, and the PaymentIntent is requires_payment_method.
            raise _fail(account, intent, AUTHENTICATION_REQUIRED, cause)
        return _require_action(account, intent, params, cause)
    if card.delayed:
        return _begin_debit(account, intent, cause)
    return _charge(account, intent, card, cause)


def _begin_debit(account: Account, intent: Params, cause: Cause) -> Params:
    # Page "Payment status updates", delayed notification methods: the intent is processing until the bank has spoken,
    # which takes up to two weeks (ACH: four business days, SEPA: fourteen, Bacs: six).
    charge = _new_charge(account, intent, cause)
    intent.update(status="processing", latest_charge=charge["id"], last_payment_error=None, next_action=None)
    account.record("charge.pending", charge, cause)
    account.record("payment_intent.processing", intent, cause)
    return intent


def settle_intent(account: Account, identity: str, cause: Cause) -> Params:
    """Act as the bank days later: the debit succeeds or fails as its test account says (no API call of Stripe's)."""
    intent = retrieve_intent(account, {}, identity)
    if intent["status"] != "processing":
        raise _wrong_state(intent, "settled")
    card = account.cards[intent["payment_method"]]
    charge = account.charges[intent["latest_charge"]]
    if card.decline is None:
        _succeed(account, intent, charge, card, cause)
        return intent
    if card.decline.code == "debit_not_authorized":
        # Page "Bacs Direct Debit", test accounts: the mandate becomes inactive, and mandate.updated tells of it.
        mandate = {"id": account.new_id("mandate"), "object": "mandate", "status": "inactive"}
        account.record("mandate.updated", {**mandate, "payment_method": intent["payment_method"]}, cause)
    _decline_debit(account, intent, charge, card.decline, cause)
    return intent


def _decline_debit(account: Account, intent: Params, charge: Params, decline: Decline, cause: Cause) -> None:
    charge.update(status="failed", failure_code=decline.code, failure_message=decline.message)
    account.record("charge.failed", charge, cause)
    # Page "Payment status updates": a failed debit goes back to requires_payment_method.
    error = {"code": decline.code, "message": decline.message, "type": "card_error", "charge": charge["id"]}
    intent.update(status="requires_payment_method", payment_method=None, last_payment_error=error)
    account.record("payment_intent.payment_failed", intent, cause)


def _require_action(account: Account, intent: Params, params: Params, cause: Cause) -> Params:
    # Page "3D Secure": status requires_action; next_action tells how the customer authenticates.
    intent["status"] = "requires_action"
    if "return_url" in params:
        url = f"https://hooks.stripe.invalid/3d_secure/{intent['id']}"
        intent["next_action"] = {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": params["return_url"], "url": url},
        }
    else:
        intent["next_action"] = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
    account.record("payment_intent.requires_action", intent, cause)
    return intent


def authenticate_intent(account: Account, identity: str, *, success: bool, cause: Cause) -> Params:
    """Act as the customer in front of the 3-D Secure page (not an API call of Stripe's)."""
    intent = retrieve_intent(account, {}, identity)
    if intent["status"] != "requires_action":
        raise _wrong_state(intent, "authenticated")
    card = account.cards[intent["payment_method"]]
    if not success:
        # Page "Error codes": payment_intent_authentication_failure.
        message = "The provided PaymentMethod has failed authentication."
        _fail(account, intent, Decline("payment_intent_authentication_failure", None, message), cause, charged=False)
        return intent
    if intent["setup_future_usage"] == "off_session":
        account.set_up.add(intent["payment_method"])
    try:
        return _charge(account, intent, card, cause)
    except StripeRefusal:
        return intent  # The customer's page shows the decline; the account learns it from the event.


def _charge(account: Account, intent: Params, card: Card, cause: Cause) -> Params:
    """Take the money, or raise the card error; the only place where a charge succeeds."""
    if card.decline is not None:
        raise _fail(account, intent, card.decline, cause)
    assert intent["amount_received"] == 0, "a PaymentIntent is charged at most once"
    _succeed(account, intent, _new_charge(account, intent, cause), card, cause)
    return intent


def _succeed(account: Account, intent: Params, charge: Params, card: Card, cause: Cause) -> None:
    assert intent["amount_received"] == 0, "a PaymentIntent is charged at most once"
    charge.update(status="succeeded", paid=True, captured=True, amount_captured=intent["amount"])
    intent.update(
        status="succeeded",
        amount_received=intent["amount"],
        latest_charge=charge["id"],
        last_payment_error=None,
        next_action=None,
    )
    if intent["setup_future_usage"] and intent["customer"]:
        # API reference, PaymentIntent `setup_future_usage`: the method is attached to the customer after confirmation.
        account.payment_methods[intent["payment_method"]]["customer"] = intent["customer"]
    account.record("charge.succeeded", charge, cause)
    account.record("payment_intent.succeeded", intent, cause)
    if card.dispute is not None:
        # Page "Testing", disputes: with these cards the payment succeeds and is disputed right after.
        open_dispute(account, charge, card.dispute, cause)


def _new_charge(account: Account, intent: Params, cause: Cause) -> Params:
    charge: Params = {
        "id": account.new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "captured": False,
        "created": now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "outcome": {"network_status": "approved_by_network", "type": "authorized"},
        "paid": False,
        "payment_intent": intent["id"],
        "payment_method": intent["payment_method"],
        "refunded": False,
        "status": "pending",
    }
    account.charges[charge["id"]] = charge
    account.charge_keys[charge["id"]] = cause.idempotency_key
    return charge


def _fail(account: Account, intent: Params, decline: Decline, cause: Cause, *, charged: bool = True) -> StripeRefusal:
    """Write down a failed attempt; returns the 402 for whoever asked (API reference, "Errors", card_error)."""
    method = copy.deepcopy(account.payment_methods[intent["payment_method"]])
    charge_id = None
    if charged:
        charge = _new_charge(account, intent, cause)
        charge.update(status="failed", failure_code=decline.code, failure_message=decline.message)
        charge["outcome"] = {
            "network_status": "declined_by_network",
            "reason": decline.decline_code,
            "type": "issuer_declined",
        }
        charge_id = charge["id"]
        account.record("charge.failed", charge, cause)
    refusal = StripeRefusal(
        402,
        "card_error",
        decline.message,
        code=decline.code,
        decline_code=decline.decline_code,
        charge=charge_id,
        payment_method=method,
        executed=True,
    )
    # Page "PaymentIntent lifecycle": after a failed attempt the status returns to requires_payment_method.
    intent.update(
        status="requires_payment_method",
        payment_method=None,
        next_action=None,
        last_payment_error=copy.deepcopy(refusal.error),
    )
    if charge_id is not None:
        intent["latest_charge"] = charge_id
    account.record("payment_intent.payment_failed", intent, cause)
    refusal.error["payment_intent"] = copy.deepcopy(intent)
    return refusal


def cancel_intent(account: Account, params: Params, cause: Cause, identity: str) -> Params:
    """Cancel an open PaymentIntent (API reference, "Cancel a PaymentIntent")."""
    check_known(params, {"cancellation_reason"})
    reason = params.get("cancellation_reason")
    if reason not in (None, "duplicate", "fraudulent", "requested_by_customer", "abandoned"):
        raise invalid("Invalid cancellation_reason", param="cancellation_reason")
    intent = retrieve_intent(account, {}, identity)
    if intent["status"] not in _OPEN:
        raise _wrong_state(intent, "canceled")
    intent.update(status="canceled", canceled_at=now(), cancellation_reason=reason, next_action=None)
    account.record("payment_intent.canceled", intent, cause)
    return intent


def retrieve_intent(account: Account, params: Params, identity: str) -> Params:
    """Retrieve a PaymentIntent."""
    check_known(params, ())
    intent = account.payment_intents.get(identity)
    if intent is None:
        raise missing("payment_intent", identity, "intent", in_path=True)
    return intent


def list_intents(account: Account, params: Params) -> Params:
    """List PaymentIntents, by customer and creation."""
    check_known(params, {*PAGING, "created", "customer"})
    chosen = [
        intent
        for intent in account.payment_intents.values()
        if created_matches(intent, params.get("created")) and params.get("customer") in (None, intent["customer"])
    ]
    return page(chosen, params, "/v1/payment_intents")


_CLAUSE = re.compile(r"""^(?:metadata\[['"](?P<name>[^'"]+)['"]\]|(?P<field>\w+))\s*:\s*['"](?P<value>[^'"]*)['"]$""")


def search_intents(account: Account, params: Params) -> Params:
    """Search by `field:'value'` and `metadata['name']:'value'` joined with AND (page "Search").

    Real search lags behind writes, as that page says; a look-up right after a write must list instead.
    """
    check_known(params, {"query", "limit", "page"})
    found = list(account.payment_intents.values())
    for clause in re.split(r"\s+AND\s+", require(params, "query")):
        match = _CLAUSE.match(clause.strip())
        if match is None or (match["field"] and match["field"] not in ("status", "customer", "currency")):
            raise invalid(f"The stand-in cannot search for {clause}", param="query")
        if match["name"]:
            found = [intent for intent in found if intent["metadata"].get(match["name"]) == match["value"]]
        else:
            found = [intent for intent in found if intent[match["field"]] == match["value"]]
    result = page(found, {"limit": params.get("limit", "10")}, "/v1/payment_intents/search")
    return {**result, "object": "search_result", "next_page": None}


def retrieve_charge(account: Account, params: Params, identity: str) -> Params:
    """Retrieve a charge (API reference, "Charges")."""
    check_known(params, ())
    if identity not in account.charges:
        raise missing("charge", identity, "charge", in_path=True)
    return account.charges[identity]


def list_charges(account: Account, params: Params) -> Params:
    """List charges, by PaymentIntent, customer and creation."""
    check_known(params, {*PAGING, "created", "customer", "payment_intent"})
    chosen = [
        charge
        for charge in account.charges.values()
        if created_matches(charge, params.get("created"))
        and params.get("customer") in (None, charge["customer"])
        and params.get("payment_intent") in (None, charge["payment_intent"])
    ]
    return page(chosen, params, "/v1/charges")
