"""What payments needs of the outside: a store with transactions, and providers that take money.

The rules of `payments.domain` never see these; the verbs at the package's top get them handed in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol, runtime_checkable

from core.errors import UnavailableError
from core.money import Money
from payments.domain.announcement import Announcement
from payments.domain.dispute import Dispute, DisputeStatus
from payments.domain.history import PaymentChange
from payments.domain.payment import Outcome, Payment, Refusal
from payments.domain.refund import Refund, RefundOutcome


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
    """Who pays, as the provider's customer record shows it, and how they are written to."""

    tenant_id: str
    name: str
    email: str
    language: str = "en"
    time_zone: str = "UTC"


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


@dataclass(frozen=True, slots=True)
class RefundNews:
    """What a webhook says of a refund. `refund_id` is ours, None for one that was made in the provider's own panel.

    `payment_reference` is the provider's id of the refunded payment, as in `Payment.provider_reference`.
    """

    refund_id: str | None
    payment_reference: str | None
    outcome: RefundOutcome
    reason: str
    happened_at: datetime | None
    # Our id of the refunded payment, where the event tells it: PayPal's names the capture, not the order.
    payment_id: str | None = None


@dataclass(frozen=True, slots=True)
class DisputeNews:
    """What a webhook says of a dispute; `status` and `amount` as in `payments.domain.dispute.Dispute`."""

    reference: str
    payment_reference: str | None
    payment_id: str | None
    status: DisputeStatus
    amount: Money
    reason: str
    opened_at: datetime | None
    evidence_due_at: datetime | None
    happened_at: datetime | None


@dataclass(frozen=True, slots=True)
class RefundTotal:
    """A webhook says how much of a payment is refunded in all, without naming the refunds: a reason to look them up."""

    payment_reference: str
    refunded: Money


@dataclass(frozen=True, slots=True)
class MethodNews:
    """A customer saved a method at the provider (`is_usable`), or it was taken away there."""

    tenant_id: str | None
    customer_reference: str | None
    method_reference: str
    is_usable: bool
    happened_at: datetime | None


News = PaymentNews | RefundNews | RefundTotal | DisputeNews | MethodNews


@dataclass(frozen=True, slots=True)
class PayerAction:
    """Where the payer must go for a payment to go on: 3-D Secure at the bank, or approval at the provider."""

    payment_id: str
    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DuePayment:
    """A payment whose outcome is to be looked up now; `checks` counts the look-ups so far."""

    payment: Payment
    checks: int


@dataclass(frozen=True, slots=True)
class DueRefund:
    """A refund whose outcome is to be looked up now; `checks` counts the look-ups so far."""

    refund: Refund
    checks: int


class PaymentUnit(Protocol):
    """One transaction of the store; leaving it without an exception commits."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Open a part that an exception undoes alone; a value that cannot be stored raises `InvalidInputError`."""
        ...

    async def latest_payment(self, invoice_id: str) -> Payment | None:
        """Lock and return the invoice's newest attempt."""
        ...

    async def lock_open_amount(self, invoice_id: str) -> Money | None:
        """Return what may be collected of an invoice now, and let nobody void or credit it until the commit.

        What has been paid is taken off, also where that is not on the invoice yet; nothing is open of an invoice that
        is void, written off or a draft. None if there is no such invoice.
        """
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

    async def note_change(self, change: PaymentChange) -> None:
        """Add an entry to a payment's history."""
        ...

    async def save_refund(self, refund: Refund, now: datetime) -> None:
        """Write a refund, new or changed."""
        ...

    async def refunds_of(self, payment_id: str) -> Sequence[Refund]:
        """Return all refunds of a payment, oldest first; lock the payment before, so that none is added meanwhile."""
        ...

    async def find_refund(self, refund_id: str) -> Refund | None:
        """Return a refund by our id, unlocked; lock its payment and read again before changing it."""
        ...

    async def save_dispute(self, dispute: Dispute, now: datetime) -> None:
        """Write a dispute, new or changed."""
        ...

    async def find_dispute(self, dispute_id: str) -> Dispute | None:
        """Return a dispute; lock its payment before."""
        ...

    async def disputes_of(self, payment_id: str) -> Sequence[Dispute]:
        """Return all disputes of a payment, oldest first; lock the payment before."""
        ...

    async def history_of(self, payment_id: str) -> Sequence[PaymentChange]:
        """Return everything that happened to a payment, its refunds and disputes, oldest first."""
        ...

    async def schedule_check(self, payment_id: str, checks: int, at: datetime | None) -> None:
        """Say when a payment's outcome is to be looked up next; its refunds count as read.

        None for never, unless refunds were spoken of since the look-up was last scheduled.
        """
        ...

    async def ask_for_refunds(self, payment_id: str, now: datetime) -> None:
        """Let the next look-up, due now, read the payment's refunds at the provider too."""
        ...

    async def schedule_refund_check(self, refund_id: str, checks: int, at: datetime | None) -> None:
        """Say when a refund's outcome is to be looked up next; None for never."""
        ...

    async def due_checks(self, now: datetime, limit: int) -> Sequence[DuePayment]:
        """Return payments whose look-up is due, the most overdue first, unlocked."""
        ...

    async def due_refund_checks(self, now: datetime, limit: int) -> Sequence[DueRefund]:
        """Return refunds whose look-up is due, the most overdue first, unlocked."""
        ...

    async def save_action(self, action: PayerAction, now: datetime) -> None:
        """Keep where the payer must go; a newer address takes the place of an earlier one, the time to act stays."""
        ...

    async def find_action(self, payment_id: str) -> PayerAction | None:
        """Return where the payer must go."""
        ...

    async def waiting_for_payer(self, provider: str, limit: int) -> Sequence[Payment]:
        """Return payments in `requires_action` whose payer was not told yet, oldest first, unlocked."""
        ...

    async def mark_payer_told(self, payment_id: str, at: datetime) -> None:
        """Remember that the payer was told where to go."""
        ...

    async def payers_to_remind(self, provider: str, now: datetime, limit: int) -> Sequence[Payment]:
        """Return payments in `requires_action` whose payer was told once, with half of the time to act over."""
        ...

    async def mark_payer_reminded(self, payment_id: str, at: datetime) -> None:
        """Remember that the payer was reminded."""
        ...

    async def expired_actions(
        self, provider: str, now: datetime, untold_since: datetime, limit: int
    ) -> Sequence[Payment]:
        """Return payments in `requires_action` whose time to act is over, oldest first, unlocked.

        One whose payer has no link is among them if it was made before `untold_since`.
        """
        ...

    async def save_payer_method(self, method: PaymentMethod, now: datetime) -> None:
        """Store how a tenant pays since `now`; earlier references of the same provider are replaced, later ones stay.

        Raises `InvalidInputError` (`unknown_tenant`).
        """
        ...

    async def remove_payer_method(self, provider: str, customer_reference: str | None, method_reference: str) -> bool:
        """Forget a saved method that is no longer usable; False if it was not the one in use."""
        ...

    async def tenant_of_customer(self, provider: str, customer_reference: str) -> str | None:
        """Return the tenant who is this customer at the provider."""
        ...

    async def announce(self, announcement: Announcement, now: datetime) -> None:
        """Put a message into the outbox."""
        ...

    async def payment_method(self, tenant_id: str) -> PaymentMethod | None:
        """Return how the tenant pays; the newest if there are several."""
        ...

    async def method_at(self, tenant_id: str, provider: str) -> PaymentMethod | None:
        """Return how the tenant pays by this provider."""
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

    async def forget_method(self, tenant_id: str, provider: str, method_reference: str) -> None:
        """Forget the references, unless another method has taken this one's place."""
        ...


class PaymentProvider(Protocol):
    """Takes money from a saved method, and gives it back."""

    name: ClassVar[str]

    async def charge(self, payment: Payment, method: PaymentMethod, description: str) -> Outcome:
        """Charge with the payment's id as idempotency key.

        Raises `UnknownOutcomeError` (ask again with the same key) and `ExhaustedKeyError` (look it up instead).
        """
        ...

    async def find_charge(self, payment: Payment, method: PaymentMethod) -> Outcome | None:
        """Look up what became of a payment, None if the provider knows nothing of it.

        Raises `UnknownOutcomeError` if it does not answer.
        """
        ...

    async def refund(self, refund: Refund, payment: Payment) -> RefundOutcome:
        """Give (a part of) a payment back, with the refund's id as idempotency key.

        A refusal of the provider is an outcome (failed, with its code). Raises `UnknownOutcomeError` and
        `ExhaustedKeyError` as `charge` does.
        """
        ...

    async def find_refund(self, refund: Refund, payment: Payment) -> RefundOutcome | None:
        """Look up what became of a refund, None if the provider knows nothing of it; raises `UnknownOutcomeError`."""
        ...


@runtime_checkable
class RefundLister(Protocol):
    """A provider that can tell all refunds of a payment, those made in its own panel included."""

    async def list_refunds(self, payment: Payment) -> Sequence[RefundNews]:
        """Return every refund of the payment, oldest first; raises `UnknownOutcomeError` if it does not answer."""
        ...


class EventSource(Protocol):
    """A provider that can be asked for its events, for those whose webhooks never came."""

    name: ClassVar[str]

    def list_events(self, since: datetime, until: datetime) -> AsyncIterator[StoredWebhook]:
        """Return the events created in [since, until), as a webhook would have brought them.

        Raises `UnavailableError` if the provider does not answer, also in the middle.
        """
        ...


class ActionProvider(Protocol):
    """A provider whose payer may have to act: pass 3-D Secure, or approve the payment."""

    name: ClassVar[str]

    async def request_action(self, payment: Payment, method: PaymentMethod) -> str | Outcome:
        """Return the address where the payer can act, or what became of the payment if there is nothing to do.

        Asking again is harmless. Raises `UnknownOutcomeError` if the provider does not answer.
        """
        ...

    async def abandon(self, payment: Payment) -> Outcome:
        """Cancel a payment that its payer left, and return what it is then: canceled, or whatever overtook that.

        Raises `UnknownOutcomeError` if the provider does not answer.
        """
        ...


class PayerNotice(Protocol):
    """Tells payers where to go."""

    async def send_action_link(
        self, payer: Payer, payment: Payment, action: PayerAction, *, is_reminder: bool = False
    ) -> None:
        """Send the link, once per payment, and once more as a reminder (each message has an id of its own).

        Raises `UnavailableError`.
        """
        ...


class SweepStore(Protocol):
    """Remembers up to when a provider's events were swept."""

    async def swept_until(self, provider: str) -> datetime | None:
        """Return the instant before which every event is in the inbox; None before the first sweep."""
        ...

    async def set_swept_until(self, provider: str, until: datetime) -> None:
        """Remember it; it never goes back."""
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

    def read(self, webhook: StoredWebhook) -> News | Refusal | None:
        """Return what it says of a payment, refund, dispute or method, why it cannot be read, or None if it is of no
        concern."""
        ...
