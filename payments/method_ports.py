"""What saving methods and listing products needs of a provider; what charging needs is in `payments.ports`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from payments.domain.price_list import ListedPrice, ListedProduct


@dataclass(frozen=True, slots=True)
class MethodSetup:
    """A method that is being saved: `client_secret` opens the provider's own form in the payer's browser, once.

    The secret is handed on and never stored.
    """

    reference: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SavedMethod:
    """A saved method as the payer knows it: kind (`card`, `sepa_debit`, ...), brand or bank, last four digits."""

    reference: str
    kind: str
    brand: str
    last4: str
    expires: str | None


class MethodRegistrar(Protocol):
    """A provider in whose own form payers save methods for later charges."""

    name: ClassVar[str]

    async def begin_setup(
        self, tenant_id: str, customer_reference: str, kinds: Sequence[str], request_key: str
    ) -> MethodSetup:
        """Begin to save a method of one of `kinds`, or of any that is offered; the same key begins the same.

        `InvalidInputError` if the provider refuses it, `UnavailableError` if it does not answer.
        """
        ...

    async def list_methods(self, customer_reference: str) -> Sequence[SavedMethod]:
        """Return the customer's saved methods, the newest first; raises as `begin_setup`."""
        ...

    async def detach_method(self, method: str) -> None:
        """Take a saved method from its customer for good; raises as `begin_setup`."""
        ...


class ProductList(Protocol):
    """The products and prices a provider shows in its own panel and forms."""

    async def put_product(self, product: ListedProduct) -> bool:
        """Make the product or give it its present name; False if it is so already."""
        ...

    async def put_price(self, price: ListedPrice) -> bool:
        """Make the price; False if it is there, `ConflictError` if another price has its key."""
        ...
