"""Products and prices at Stripe. Source: API reference, "Products" (own ids), "Prices" (lookup_key; never changed)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import stripe

from core.errors import ConflictError, Fault, InvalidInputError
from core.ids import derive_id
from payments.adapters.stripe_amounts import to_stripe_decimal
from payments.adapters.stripe_client import StripeAccount
from payments.adapters.stripe_errors import is_missing, refuse
from payments.domain.price_list import ListedPrice, ListedProduct


class StripeCatalogue(StripeAccount):
    """Implements `payments.method_ports.ProductList`."""

    async def put_product(self, product: ListedProduct) -> bool:
        """Make the product or give it its present name; False if it is so already."""
        identity = _product_id(product.plan_id)
        try:
            try:
                found = await self._client.v1.products.retrieve_async(identity)
            except stripe.InvalidRequestError as error:
                if not is_missing(error):
                    raise
                await self._client.v1.products.create_async(
                    {"id": identity, "name": product.name, "metadata": {"plan_id": product.plan_id}},
                    {"idempotency_key": derive_id("product", product.plan_id, product.name)},
                )
                return True
            if found.name == product.name:
                return False
            await self._client.v1.products.update_async(identity, {"name": product.name})
        except stripe.StripeError as error:
            refuse(error)
        return True

    async def put_price(self, price: ListedPrice) -> bool:
        """Make the price; False if it is there, `ConflictError` if another one has its key."""
        wanted = _describe_price(price)
        try:
            listed = await self._client.v1.prices.list_async({"lookup_keys": [price.key], "limit": 1})
            if listed.data:
                _must_agree(price, wanted, listed.data[0].to_dict())
                return False
            await self._client.v1.prices.create_async(
                wanted,  # type: ignore[arg-type]
                {"idempotency_key": derive_id("price", price.key)},
            )
        except stripe.StripeError as error:
            refuse(error)
        return True


def _product_id(plan_id: str) -> str:
    return f"meterbook_{plan_id}"


def _describe_price(price: ListedPrice) -> dict[str, Any]:
    units = to_stripe_decimal(price.amount)
    if units is None:
        raise InvalidInputError([Fault("invalid_amount", f"Stripe takes 12 decimal places: {price.amount}", price.key)])
    wanted: dict[str, Any] = {
        "product": _product_id(price.plan_id),
        "currency": price.amount.currency.lower(),
        "unit_amount_decimal": f"{units.normalize():f}",
        "nickname": price.name,
        "lookup_key": price.key,
        "metadata": {"plan_id": price.plan_id},
    }
    if price.interval is not None:
        wanted["recurring"] = {"interval": price.interval, "interval_count": price.every}
    return wanted


def _must_agree(price: ListedPrice, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    same = (
        found.get("product") == wanted["product"]
        and found.get("currency") == wanted["currency"]
        and Decimal(str(found.get("unit_amount_decimal"))) == Decimal(wanted["unit_amount_decimal"])
        and _rhythm(found.get("recurring")) == _rhythm(wanted.get("recurring"))
    )
    if not same:
        raise ConflictError(f"{price.key} is another price at Stripe ({found.get('id')}): versions never change")


def _rhythm(recurring: Any) -> tuple[Any, Any] | None:
    return (recurring.get("interval"), recurring.get("interval_count")) if isinstance(recurring, Mapping) else None
