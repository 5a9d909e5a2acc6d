"""Brings a provider's product list to the catalogue: plans as products, fixed fees of every version as prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from payments.domain.price_list import PlanDocument, list_prices, list_products
from payments.method_ports import ProductList


@dataclass(frozen=True, slots=True)
class Synced:
    """What a run changed and found; a second run changes nothing."""

    products_changed: tuple[str, ...]
    prices_added: tuple[str, ...]
    products: int
    prices: int


async def sync_catalogue(versions: Sequence[PlanDocument], *, provider: ProductList) -> Synced:
    """Make what is missing; prices that are there are compared and never changed.

    Raises `ConflictError` if a price there is not ours, `InvalidInputError` if the provider refuses one, and
    `UnavailableError` if it does not answer: run it again, what was made is found.
    """
    products, prices = list_products(versions), list_prices(versions)
    changed = [each.plan_id for each in products if await provider.put_product(each)]
    added = [each.key for each in prices if await provider.put_price(each)]
    return Synced(tuple(changed), tuple(added), len(products), len(prices))
