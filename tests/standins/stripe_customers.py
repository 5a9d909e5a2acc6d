"""Customers and PaymentMethods (API reference, "Customers", "PaymentMethods"). Owns what may be attached to whom."""

from __future__ import annotations

from tests.standins.stripe_account import Account, Cause, now
from tests.standins.stripe_cards import CARDS
from tests.standins.stripe_errors import StripeRefusal, invalid, missing, refused
from tests.standins.stripe_params import PAGING, Params, check_known, created_matches, merge_metadata, page, require

_TEXTS = ("name", "email", "phone", "description")
_WRITABLE = {*_TEXTS, "metadata", "address", "invoice_settings", "payment_method", "preferred_locales"}


def create_customer(account: Account, params: Params, cause: Cause) -> Params:
    """Create a customer; `payment_method` is attached to it."""
    check_known(params, _WRITABLE)
    customer: Params = {
        "id": "",
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": now(),
        "currency": None,
        "default_source": None,
        "description": None,
        "email": None,
        "invoice_settings": {"default_payment_method": None},
        "livemode": False,
        "metadata": {},
        "name": None,
        "phone": None,
        "preferred_locales": [],
    }
    metadata = merge_metadata({}, params)
    customer["id"] = account.new_id("cus")
    if "payment_method" in params:
        _attach(account, params["payment_method"], customer["id"])
    _write(account, customer, params)
    customer["metadata"] = metadata
    account.customers[customer["id"]] = customer
    account.record("customer.created", customer, cause)
    return customer


def update_customer(account: Account, params: Params, cause: Cause, identity: str) -> Params:
    """Change the given fields of a customer."""
    check_known(params, _WRITABLE - {"payment_method"})
    customer = account.customer(identity, in_path=True)
    metadata = merge_metadata(customer.get("metadata", {}), params)
    _write(account, customer, params)
    customer["metadata"] = metadata
    account.record("customer.updated", customer, cause)
    return customer


def _write(account: Account, customer: Params, params: Params) -> None:
    settings = params.get("invoice_settings", {})
    default = settings.get("default_payment_method") if isinstance(settings, dict) else None
    if default is not None and not isinstance(default, str):
        raise invalid("Invalid string", param="invoice_settings[default_payment_method]")
    if default:
        # API reference, Customer `invoice_settings.default_payment_method`: must be attached to the customer.
        method = account.payment_method(default)
        if method["customer"] != customer["id"]:
            message = f"The customer does not have a payment method with the ID {default}."
            raise refused(message, code="resource_missing", param="invoice_settings[default_payment_method]")
        customer["invoice_settings"] = {"default_payment_method": method["id"]}
    for name in _TEXTS:
        if name in params:
            customer[name] = params[name] or None
    for name in ("address", "preferred_locales"):
        if name in params:
            customer[name] = params[name] or None


def retrieve_customer(account: Account, params: Params, identity: str) -> Params:
    """Retrieve a customer; a deleted one comes back with `deleted: true`."""
    check_known(params, ())
    return account.customer(identity, in_path=True)


def delete_customer(account: Account, params: Params, cause: Cause, identity: str) -> Params:
    """Delete a customer; its payment methods are detached."""
    check_known(params, ())
    customer = account.customer(identity, in_path=True)
    for method in account.payment_methods.values():
        if method["customer"] == identity:
            method["customer"] = None
    account.record("customer.deleted", customer, cause)
    account.customers[identity] = {"id": identity, "object": "customer", "deleted": True}
    return account.customers[identity]


def list_customers(account: Account, params: Params) -> Params:
    """List customers, by e-mail (case-sensitive) and creation."""
    check_known(params, {*PAGING, "created", "email"})
    chosen = [
        customer
        for customer in account.customers.values()
        if not customer.get("deleted")
        and created_matches(customer, params.get("created"))
        and params.get("email") in (None, customer["email"])
    ]
    return page(chosen, params, "/v1/customers")


def create_payment_method(account: Account, params: Params, _: Cause) -> Params:
    """Make a PaymentMethod from a test token such as tok_visa; card numbers are refused."""
    check_known(params, {"type", "card", "billing_details", "metadata"})
    if require(params, "type") != "card":
        raise invalid(f"The stand-in knows cards only, not {params['type']}", param="type")
    card = params.get("card")
    token = card.get("token") if isinstance(card, dict) else None
    name = f"pm_card_{str(token).removeprefix('tok_')}"
    if name not in CARDS:
        # Page "Error codes": raw card data in server-side code is what the product must never send.
        raise invalid("Sending card data directly is refused; use a test token", param="card")
    method = account.add_payment_method(CARDS[name])
    method["metadata"] = merge_metadata({}, params)
    return method


def retrieve_payment_method(account: Account, params: Params, identity: str) -> Params:
    """Retrieve a PaymentMethod."""
    check_known(params, ())
    return account.payment_method(identity, in_path=True)


def list_payment_methods(account: Account, params: Params) -> Params:
    """List the payment methods of a customer given as a parameter."""
    check_known(params, {*PAGING, "customer", "type"})
    return _list_of_customer(account, params, require(params, "customer"), "/v1/payment_methods", in_path=False)


def list_customer_payment_methods(account: Account, params: Params, identity: str) -> Params:
    """List the payment methods of the customer in the path."""
    check_known(params, {*PAGING, "type"})
    return _list_of_customer(account, params, identity, f"/v1/customers/{identity}/payment_methods", in_path=True)


def _list_of_customer(account: Account, params: Params, identity: str, url: str, *, in_path: bool) -> Params:
    account.customer(identity, in_path=in_path)
    wanted = params.get("type")
    methods = account.payment_methods.values()
    return page([m for m in methods if m["customer"] == identity and wanted in (None, m["type"])], params, url)


def attach_payment_method(account: Account, params: Params, cause: Cause, identity: str) -> Params:
    """Attach a PaymentMethod to a customer; a test card's name gives a new PaymentMethod with its own id."""
    check_known(params, {"customer"})
    customer = account.customer(require(params, "customer"))
    method = _attach(account, identity, customer["id"], in_path=True)
    account.record("payment_method.attached", method, cause)
    return method


def _attach(account: Account, identity: str, customer_id: str, *, in_path: bool = False) -> Params:
    card = CARDS.get(identity)
    if card is not None and not card.attachable and card.decline is not None:
        # Page "Testing", declined payments: these cards cannot be attached to a customer.
        decline = card.decline
        raise StripeRefusal(
            402, "card_error", decline.message, code=decline.code, decline_code=decline.decline_code, executed=True
        )
    method = account.payment_method(identity, in_path=in_path)
    if method["customer"] not in (None, customer_id):
        message = "The payment method you provided has already been attached to a customer."
        raise refused(message, code="payment_method_unexpected_state")
    method["customer"] = customer_id
    return method


def detach_payment_method(account: Account, params: Params, cause: Cause, identity: str) -> Params:
    """Detach a PaymentMethod from its customer."""
    check_known(params, ())
    method = account.payment_methods.get(identity)
    if method is None:
        raise missing("PaymentMethod", identity, "payment_method", in_path=True)
    if method["customer"] is None:
        message = "The payment method you provided is not attached to a customer so detachment is impossible."
        raise refused(message, code="payment_method_unexpected_state")
    customer_id, method["customer"] = method["customer"], None
    default = account.customers.get(customer_id, {}).get("invoice_settings", {})
    if default.get("default_payment_method") == identity:
        default["default_payment_method"] = None
    account.record("payment_method.detached", method, cause, {"customer": customer_id})
    return method
