"""Products and prices (API reference, "Products", "Prices"). Owns that a price's amount and rhythm never change."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from tests.standins.stripe_account import Account, Cause, now
from tests.standins.stripe_amounts import read_currency
from tests.standins.stripe_errors import invalid, missing, refused
from tests.standins.stripe_params import PAGING, Params, check_known, merge_metadata, page, read_integer, require


def create_product(account: Account, params: Params, cause: Cause) -> Params:
    """Create a product; its id may be given (API reference, "Create a product")."""
    check_known(params, {"id", "name", "description", "metadata", "active"})
    identity = params.get("id") or account.new_id("prod")
    if identity in account.products:
        # Page "Error codes", resource_already_exists.
        raise refused("Product already exists.", code="resource_already_exists", param="id")
    product: Params = {
        "id": identity,
        "object": "product",
        "active": True,
        "created": now(),
        "description": params.get("description"),
        "livemode": False,
        "metadata": merge_metadata({}, params),
        "name": require(params, "name"),
    }
    account.products[identity] = product
    account.record("product.created", product, cause)
    return product


def update_product(account: Account, params: Params, cause: Cause, identity: str) -> Params:
    """Change a product's name, description or metadata."""
    check_known(params, {"name", "description", "metadata", "active"})
    product = retrieve_product(account, {}, identity)
    metadata = merge_metadata(product["metadata"], params)
    product.update({name: params[name] for name in ("name", "description") if name in params}, metadata=metadata)
    account.record("product.updated", product, cause)
    return product


def retrieve_product(account: Account, params: Params, identity: str) -> Params:
    """Retrieve a product."""
    check_known(params, ())
    if identity not in account.products:
        raise missing("product", identity, "id", in_path=True)
    return account.products[identity]


def create_price(account: Account, params: Params, cause: Cause) -> Params:
    """Create a price of a product; a lookup key belongs to one price of the account."""
    check_known(
        params,
        {
            "product",
            "currency",
            "unit_amount",
            "unit_amount_decimal",
            "recurring",
            "nickname",
            "lookup_key",
            "metadata",
        },
    )
    product = require(params, "product")
    if product not in account.products:
        raise missing("product", product, "product", in_path=False)
    key = params.get("lookup_key")
    if key is not None and any(price["lookup_key"] == key for price in account.prices.values()):
        raise refused(f"A price already uses that lookup key: {key}.", param="lookup_key")
    amount = _read_decimal(params)
    whole = int(amount) if amount == amount.to_integral_value() else None
    price: Params = {
        "id": account.new_id("price"),
        "object": "price",
        "active": True,
        "created": now(),
        "currency": read_currency(require(params, "currency")),
        "livemode": False,
        "lookup_key": key,
        "metadata": merge_metadata({}, params),
        "nickname": params.get("nickname"),
        "product": product,
        "recurring": _read_recurring(params),
        "type": "recurring" if "recurring" in params else "one_time",
        "unit_amount": whole,
        "unit_amount_decimal": f"{amount.normalize():f}",
    }
    account.prices[price["id"]] = price
    account.record("price.created", price, cause)
    return price


def _read_decimal(params: Params) -> Decimal:
    if ("unit_amount" in params) == ("unit_amount_decimal" in params):
        raise invalid("Exactly one of unit_amount and unit_amount_decimal is required.", param="unit_amount")
    if "unit_amount" in params:
        return Decimal(read_integer(params["unit_amount"], "unit_amount"))
    try:
        amount = Decimal(str(params["unit_amount_decimal"]))
    except InvalidOperation as error:
        raise invalid("Invalid decimal", param="unit_amount_decimal") from error
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -12:
        # API reference, Price `unit_amount_decimal`: at most 12 decimal places.
        raise invalid("At most 12 decimal places", param="unit_amount_decimal")
    return amount


def _read_recurring(params: Params) -> Params | None:
    recurring = params.get("recurring")
    if recurring is None:
        return None
    if not isinstance(recurring, dict) or recurring.get("interval") not in ("day", "week", "month", "year"):
        raise invalid("Invalid recurring[interval]", param="recurring[interval]")
    count = read_integer(recurring.get("interval_count", "1"), "recurring[interval_count]")
    return {"interval": recurring["interval"], "interval_count": count, "usage_type": "licensed"}


def list_prices(account: Account, params: Params) -> Params:
    """List prices, by product and up to ten lookup keys."""
    check_known(params, {*PAGING, "product", "lookup_keys", "active"})
    keys = params.get("lookup_keys")
    if keys is not None and (not isinstance(keys, list) or len(keys) > 10):
        raise invalid("lookup_keys takes up to 10 keys", param="lookup_keys")
    chosen = [
        price
        for price in account.prices.values()
        if params.get("product") in (None, price["product"]) and (keys is None or price["lookup_key"] in keys)
    ]
    return page(chosen, params, "/v1/prices")
