"""SetupIntents (API reference, "SetupIntents"; page "Set up future payments"): saving a method without paying."""

from __future__ import annotations

from tests.standins.stripe_account import Account, Cause, now
from tests.standins.stripe_errors import invalid, missing, refused
from tests.standins.stripe_params import Params, check_known, merge_metadata

_KINDS = {"acss_debit", "au_becs_debit", "bacs_debit", "card", "link", "sepa_debit", "us_bank_account"}


def create_setup(account: Account, params: Params, cause: Cause) -> Params:
    """Create a SetupIntent; its client secret opens Stripe's form in the payer's browser."""
    check_known(params, {"customer", "usage", "payment_method_types", "automatic_payment_methods", "metadata"})
    if "payment_method_types" in params and "automatic_payment_methods" in params:
        raise invalid("You may only specify one of: automatic_payment_methods, payment_method_types.")
    kinds = params.get("payment_method_types", ["card"])
    if not isinstance(kinds, list) or not set(kinds) <= _KINDS:
        raise invalid(f"Invalid payment_method_types: {kinds}", param="payment_method_types")
    if params.get("usage", "off_session") not in ("off_session", "on_session"):
        raise invalid("Invalid usage", param="usage")
    customer = account.customer(params["customer"])["id"] if "customer" in params else None
    identity = account.new_id("seti")
    setup: Params = {
        "id": identity,
        "object": "setup_intent",
        "client_secret": f"{identity}_secret_standin",
        "created": now(),
        "customer": customer,
        "livemode": False,
        "metadata": merge_metadata({}, params),
        "payment_method": None,
        "payment_method_types": kinds,
        "status": "requires_payment_method",
        "usage": params.get("usage", "off_session"),
    }
    account.setup_intents[identity] = setup
    account.record("setup_intent.created", setup, cause)
    return setup


def retrieve_setup(account: Account, params: Params, identity: str) -> Params:
    """Retrieve a SetupIntent."""
    check_known(params, ())
    if identity not in account.setup_intents:
        raise missing("setupintent", identity, "intent", in_path=True)
    return account.setup_intents[identity]


def complete_setup(account: Account, identity: str, method_name: str, cause: Cause) -> Params:
    """Act as the payer in Stripe's form: the method is authenticated and attached (not an API call of Stripe's)."""
    setup = retrieve_setup(account, {}, identity)
    if setup["status"] == "succeeded":
        raise refused("This SetupIntent has already succeeded.", code="setup_intent_unexpected_state")
    method = account.payment_method(method_name)
    method["customer"] = setup["customer"]
    account.set_up.add(method["id"])
    setup.update(status="succeeded", payment_method=method["id"])
    account.record("payment_method.attached", method, cause)
    account.record("setup_intent.succeeded", setup, cause)
    return setup
