"""What payments needs of the outside: a store with transactions, and providers that take money.

The rules of `payments.domain` never see these; the verbs at the package's top get them handed in.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol

from core.errors import UnavailableError
from payments.domain.announcement import Announcement
from payments.domain.payment import Outcome, Payment, Refusal


class UnknownOutcomeError(UnavailableError):
    """The provider did not answer, or said 5xx, 409 or 429: the charge may have happened. Ask again, same key."""

    code = "unknown_outcome"


class ExhaustedKeyError(UnavailableError):
    """The provider repeats a stored server error for our key: nothing more will come of this key."""

    code = "exhausted_key"


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """How a tenant pays: the provider's references of the customer and of the saved method."""

    tenant_id: str
    provider: str
    customer_reference: str
    method_reference: str


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays, as the provider's customer record shows it."""

    tenant_id: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class StoredWebhook:
    """A webhook as received: `body` is byte for byte what was signed."""

    provider: str
    event_id: str
    event_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class PaymentNews:
    """What a webhook says of a payment. `payment_id` is ours (from the metadata), None if the object has none."""

    payment_id: str | None
    outcome: Outcome
    happened_at: datetime | None


class PaymentUnit(Protocol):
    """One transaction of the store; leaving it without an exception commits."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Open a part that an exception undoes alone; a value that cannot be stored raises `InvalidInputError`."""
        ...

    async def latest_payment(self, invoice_id: str) -> Payment | None:
        """Lock and return the invoice's newest attempt."""
        ...

    async def insert_payment(self, payment: Payment, now: datetime) -> bool:
        """Write a new payment; False if it is there already or another one of the invoice is live or has succeeded.

        Raises `InvalidInputError` (`unknown_invoice`) if there is no such invoice or tenant.
        """
        ...

    async def lock_payment(self, payment_id: str) -> Payment | None:
        """Lock and return a payment."""
        ...

    async def lock_payment_of(self, provider: str, reference: str) -> Payment | None:
        """Lock and return the payment with this reference at the provider."""
        ...

    async def update_payment(self, payment: Payment, now: datetime) -> None:
        """Write a changed payment; `ConflictError` if another payment of its invoice is live or has succeeded."""
        ...

    async def announce(self, announcement: Announcement, now: datetime) -> None:
        """Put a message into the outbox."""
        ...

    async def payment_method(self, tenant_id: str) -> PaymentMethod | None:
        """Return how the tenant pays; the newest if there are several."""
        ...

    async def next_webhook(self) -> StoredWebhook | None:
        """Lock and return the oldest webhook without effect that nobody else works on."""
        ...

    async def close_webhook(self, webhook: StoredWebhook, now: datetime, refusal: str | None) -> None:
        """Mark a webhook as processed, with the reason if it was refused."""
        ...


class PaymentStore(Protocol):
    """The truth of payments."""

    def transaction(self) -> AbstractAsyncContextManager[PaymentUnit]:
        """Open a transaction."""
        ...


class WebhookInbox(Protocol):
    """Where webhooks wait until they take effect."""

    async def add(self, webhook: StoredWebhook, received_at: datetime) -> bool:
        """Keep a webhook; False if the same event was kept before."""
        ...


class PayerStore(Protocol):
    """Tenants and their payment methods."""

    async def find_payer(self, tenant_id: str) -> Payer | None:
        """Return the tenant."""
        ...

    async def find_customer(self, tenant_id: str, provider: str) -> str | None:
        """Return the tenant's customer reference at the provider."""
        ...

    async def save_method(self, method: PaymentMethod, now: datetime) -> None:
        """Store the references, replacing earlier ones of the same provider."""
        ...


class PaymentProvider(Protocol):
    """Takes money from a saved method."""

    name: ClassVar[str]

    async def charge(self, payment: Payment, method: PaymentMethod, description: str) -> Outcome:
        """Charge with the payment's id as idempotency key.

        Raises `UnknownOutcomeError` (ask again with the same key) and `ExhaustedKeyError` (look it up instead).
        """
        ...

    async def find_charge(self, payment: Payment, method: PaymentMethod) -> Outcome | None:
        """Look up what became of a payment, None if the provider knows nothing of it."""
        ...


class CustomerRegistrar(Protocol):
    """Keeps customers and saved methods at a provider."""

    name: ClassVar[str]

    async def create_customer(self, payer: Payer) -> str:
        """Create the customer, once per tenant, and return its reference."""
        ...

    async def attach_method(self, tenant_id: str, customer_reference: str, method: str) -> str:
        """Save a method for the customer and return its reference; `InvalidInputError` if the provider refuses it."""
        ...


class WebhookReader(Protocol):
    """Reads a provider's webhook bodies."""

    def read(self, webhook: StoredWebhook) -> PaymentNews | Refusal | None:
        """Return what it says of a payment, why it cannot be read, or None if it is of no concern."""
        ...
