"""What the API needs of the outside. Stages stay strangers: whoever takes webhooks in comes as a `WebhookReceiver`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

from core.errors import NotFoundError, UnavailableError
from core.meters import Registry


class NotConfirmedError(UnavailableError):
    """The broker did not confirm in time. Nothing is promised; sending the same ids again is safe."""

    code = "not_confirmed"


class OverloadedError(UnavailableError):
    """More is waiting for the broker than may wait; try again."""

    code = "overloaded"


class DocumentNotReadyError(NotFoundError):
    """The invoice has not been rendered in this form yet."""

    code = "document_not_ready"


class OnlyADraftError(DocumentNotReadyError):
    """The invoice is a draft: it has no document, and may be looked at as a PDF."""


class CostBook(Protocol):
    """What tenants' open periods cost so far."""

    async def cost(self, tenant_id: str, period: str) -> dict[str, Any]:
        """Return a billing period's running cost as JSON; raises `UnavailableError`."""
        ...


class TenantDesk(Protocol):
    """Tenants' particulars as JSON."""

    async def find(self, tenant_id: str) -> dict[str, Any]:
        """Return a tenant's particulars; raises `NotFoundError`, `UnavailableError`."""
        ...

    async def create(self, particulars: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Create a tenant and tell whether it is new; raises `InvalidInputError`, `ConflictError`."""
        ...

    async def update(self, tenant_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change a tenant's particulars; raises `NotFoundError`, `InvalidInputError`."""
        ...


class RegistrySource(Protocol):
    """The tenants and meters that events are judged by."""

    async def current(self) -> Registry:
        """Return the registry, a few seconds old at most; `UnavailableError` if none could be read yet."""
        ...

    async def newest(self) -> Registry:
        """Return a registry that knows all that was committed before the call, for a second look at a refusal."""
        ...


class UsagePublisher(Protocol):
    """Puts usage on `usage.events`."""

    async def publish(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Publish (tenant, value) records and return when the broker has confirmed all of them.

        Raises `NotConfirmedError` or `OverloadedError`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Document:
    """A rendered invoice."""

    content: bytes
    sha256: str
    filename: str


class PaymentDesk(Protocol):
    """Payments as recorded, and refunds of them; amounts in the answers are decimal strings."""

    async def list_payments(
        self, *, tenant: str | None, invoice: str | None, status: str | None, limit: int, starting_after: str | None
    ) -> list[dict[str, Any]]:
        """Return payments, newest first."""
        ...

    async def find_payment(self, payment_id: str) -> dict[str, Any]:
        """Return a payment with its refunds, disputes and history; raises `NotFoundError`."""
        ...

    async def ask_refund(
        self, payment_id: str, *, amount: Decimal | None, reason: str, key: str, requested_by: str
    ) -> dict[str, Any]:
        """Write a refund down to be made soon; the same key is the same refund, with another amount `ConflictError`.

        Raises `NotFoundError`, and `InvalidInputError` for what cannot be refunded.
        """
        ...

    async def find_note_refund(self, reference: str) -> dict[str, Any]:
        """Return how the refund of a credit note stands; raises `NotFoundError` where its value is a credit."""
        ...

    async def refund_note(self, reference: str, *, requested_by: str) -> dict[str, Any]:
        """Refund a credit note whose credit is unused, or try again what failed; what is done stays as it is.

        Raises `NotFoundError`, `InvalidInputError` (`nothing_paid`, `not_refundable`), `ConflictError` (`credit_used`).
        """
        ...

    async def credit_note_after_all(self, reference: str) -> dict[str, Any]:
        """Give as a credit what could not be refunded; raises `NotFoundError`, `ConflictError` (`refund_under_way`)."""
        ...

    async def list_owed_refunds(self) -> list[dict[str, Any]]:
        """Return the credit notes whose refund failed and was not tried again, the oldest first."""
        ...

    async def list_disputes(self) -> list[dict[str, Any]]:
        """Return disputes that wait for evidence or a decision, the nearest deadline first."""
        ...


class MethodDesk(Protocol):
    """What tenants pay by, at the providers that are set up.

    Raises `NotFoundError`, `InvalidInputError` with the provider's own code, `UnavailableError` where it is not set up
    or does not answer.
    """

    async def list_methods(self, tenant_id: str) -> list[dict[str, Any]]:
        """Return what the tenant can pay by; `is_default` is what invoices are paid by."""
        ...

    async def begin_setup(self, tenant_id: str, kinds: Sequence[str], *, key: str) -> dict[str, Any]:
        """Return what opens the provider's own form in the payer's browser; the same key begins the same."""
        ...

    async def set_method(self, tenant_id: str, provider: str, method: str | None) -> dict[str, Any]:
        """Save a method that the provider holds and pay by it from now on; what is so already stays as it is."""
        ...

    async def remove_method(self, tenant_id: str, provider: str, method: str) -> None:
        """Take a saved method away; `ConflictError` (`default_method`) for the default while there are others."""
        ...


class BankClerk(Protocol):
    """The bank desk; answers are documents, amounts in them decimal strings.

    Raises `NotFoundError`, `InvalidInputError` with every fault and its place, `ConflictError` where an entry or a
    statement does not stand so.
    """

    async def import_file(
        self, content: bytes, *, file: str, format: str | None, profile: str | None, by: str
    ) -> dict[str, Any]:
        """Take a statement in, whole or not at all; one that came before brings nothing new."""
        ...

    async def list_proposals(self, entry: str | None) -> list[dict[str, Any]]:
        """Return the entries that wait, oldest first, with what they may be for, best first."""
        ...

    async def confirm(self, entry: str, said: Mapping[str, Any], *, key: str, by: str) -> dict[str, Any]:
        """Write down what an entry is for, once per key; `ConflictError` (`key_used`) if the key said otherwise."""
        ...

    async def reject(self, entry: str, *, reason: str, by: str) -> dict[str, Any]:
        """Put an entry away that pays no invoice."""
        ...

    async def reopen(self, entry: str, *, by: str) -> dict[str, Any]:
        """Take a rejection back."""
        ...

    async def list_accounts(self) -> list[dict[str, Any]]:
        """Return each account: until when its statements go, whether books and bank agree, and what waits."""
        ...


class DocumentClerk(Protocol):
    """What may be done with documents; `reference` is an id or a printed number."""

    async def draft_pdf(self, reference: str) -> bytes:
        """Return the PDF of a draft, marked on every page; nothing of it is kept.

        Raises `NotFoundError`, `InvalidInputError` (`not_a_draft`), `UnavailableError` if a store is away.
        """
        ...

    async def resend(self, reference: str, *, to: str | None, key: str) -> dict[str, Any]:
        """Have an issued document sent once more, to its buyer or to an address; the same key sends once.

        Raises `NotFoundError`, `InvalidInputError` (`void_invoice`, `no_address`, `invalid_address`, `mail_off`),
        `ConflictError` where the key was used for another address, `UnavailableError`.
        """
        ...


class InvoiceDesk(Protocol):
    """What is done to invoices; `reference` is an id or a printed number, answers are documents.

    Raises `NotFoundError`, `InvalidInputError` with every fault, `ConflictError` where the invoice or the account does
    not stand so, `UnavailableError` if a store is away.
    """

    async def invoice_now(self, tenant_id: str, period: str) -> list[dict[str, Any]]:
        """Issue what is owed for a month that is over, or the last period before an instant; again, nothing."""
        ...

    async def sell_once(self, tenant_id: str, items: Sequence[Mapping[str, Any]], *, key: str) -> dict[str, Any]:
        """Invoice items (`description`, `unit_amount`, `quantity`, `unit`); the same key sells once."""
        ...

    async def credit(
        self, reference: str, *, amount: Decimal | None, lines: dict[int, Decimal | None], reason: str, key: str
    ) -> dict[str, Any]:
        """Give part of an invoice back; the same key gives back once."""
        ...

    async def credit_and_refund(
        self,
        reference: str,
        *,
        amount: Decimal | None,
        lines: dict[int, Decimal | None],
        reason: str,
        key: str,
        requested_by: str,
    ) -> dict[str, Any]:
        """Give part of an invoice back through its payments in place of a credit; `refund` says how that stands.

        Refused with nothing done: `nothing_paid`, `not_refundable`.
        """
        ...

    async def void(self, reference: str, *, reason: str) -> dict[str, Any]:
        """Let an invoice count as never billed."""
        ...

    async def write_off(self, reference: str, *, reason: str) -> dict[str, Any]:
        """Let an invoice be uncollectible."""
        ...

    async def reissue(self, reference: str, *, reason: str) -> list[dict[str, Any]]:
        """Take an invoice back and issue what is owed now."""
        ...


class InvoiceBook(Protocol):
    """Invoices as issued. Amounts and quantities in the answers are decimal strings."""

    async def list_invoices(
        self, *, tenant: str | None, status: str | None, limit: int, starting_after: str | None
    ) -> list[dict[str, Any]]:
        """Return up to `limit` invoices, newest first; `NotFoundError` if `starting_after` names none."""
        ...

    async def find_invoice(self, invoice_id: str) -> dict[str, Any]:
        """Return an invoice with its lines; `NotFoundError`."""
        ...

    async def find_document(self, invoice_id: str, media_type: str) -> Document:
        """Return the rendered invoice; `NotFoundError` if there is no invoice, `DocumentNotReadyError` if no file."""
        ...


class WebhookReceiver(Protocol):
    """Takes signed webhooks of a payment provider in."""

    async def receive(self, body: bytes, signature: str | None) -> None:
        """Keep the webhook; `InvalidInputError` if it is not the provider's, `UnavailableError` to have it again."""
        ...


class HeaderWebhookReceiver(Protocol):
    """Takes in signed webhooks of a payment provider that proves them by several headers."""

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep the webhook; header names are in lower case. Raises as `WebhookReceiver`."""
        ...


class DeadLetterDesk(Protocol):
    """Dead letters as documents. All calls raise `UnavailableError` if a store does not answer.

    Those that name a letter raise `NotFoundError`, `ConflictError` (it was settled before), `InvalidInputError`.
    """

    async def list_letters(
        self,
        *,
        topic: str | None,
        code: str | None,
        tenant: str | None,
        since: datetime | None,
        until: datetime | None,
        state: str | None,
        order: str,
        limit: int,
        cursor: str | None,
    ) -> dict[str, Any]:
        """Return a page: `data`, `next_cursor` (None on the last one), `looked_at`."""
        ...

    async def count_letters(self) -> dict[str, Any]:
        """Return counts by topic and code in `data`, and whether they are complete."""
        ...

    async def find_letter(self, topic: str, partition: int, offset: int) -> dict[str, Any]:
        """Return a letter with its body."""
        ...

    async def replay_letter(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        actor: str,
        reason: str,
        again: bool,
        dry_run: bool,
        mended: bytes | None,
    ) -> dict[str, Any]:
        """Send a letter back to its source topic, `mended` in place of its body if given; returns where it went."""
        ...

    async def discard_letter(
        self, topic: str, partition: int, offset: int, *, actor: str, reason: str
    ) -> dict[str, Any]:
        """Put a letter away for good."""
        ...


class UsageBook(Protocol):
    """Counted usage as documents: quantities are decimal strings. Raises `UnavailableError` if the store is away."""

    async def query(
        self,
        registry: Registry,
        *,
        tenant: str,
        meter: str,
        window: str,
        start: str | None,
        end: str | None,
        group_by: Sequence[str],
        filters: Sequence[str],
        limit: int,
        cursor: str | None,
    ) -> dict[str, Any]:
        """Return a page: `data` by window and group, `group_by`, `next_cursor`; refuses with all faults."""
        ...

    async def summarize(self, registry: Registry, *, tenant: str, period: str | None) -> dict[str, Any]:
        """Return the totals of all meters in a period; `NotFoundError`, `InvalidInputError`."""
        ...


class AlertDesk(Protocol):
    """Alerts, rules and webhook endpoints as documents. Raises `UnavailableError` if the store is away."""

    async def list_alerts(
        self,
        *,
        tenant: str | None,
        kind: str | None,
        status: Literal["pending", "sent", "refused"] | None,
        limit: int,
        starting_after: str | None,
    ) -> list[dict[str, Any]]:
        """Return up to `limit` alerts, newest first; `NotFoundError` if `starting_after` names none."""
        ...

    async def resend_alert(self, alert_id: str) -> int:
        """Let what was not delivered of an alert go out again; returns how many deliveries. `NotFoundError`."""
        ...

    async def list_rules(self) -> list[dict[str, Any]]:
        """Return all rules."""
        ...

    async def put_rule(self, rule_id: str, document: dict[str, Any]) -> dict[str, Any]:
        """Write a rule; refuses with all faults, `NotFoundError` (tenant, meter), `ConflictError` (said twice)."""
        ...

    async def delete_rule(self, rule_id: str) -> None:
        """Remove a rule; `NotFoundError`."""
        ...

    async def list_endpoints(self) -> list[dict[str, Any]]:
        """Return all webhook endpoints, without their secrets."""
        ...

    async def put_endpoint(self, endpoint_id: str, document: dict[str, Any]) -> dict[str, Any]:
        """Write an endpoint; the answer has its `secret` if it is new. Refuses with all faults, `NotFoundError`."""
        ...

    async def rotate_secret(self, endpoint_id: str) -> dict[str, Any]:
        """Give an endpoint a new secret, which the answer has; `NotFoundError`."""
        ...


# Returns when the dependency answers, raises whatever when it does not.
ReadinessCheck = Callable[[], Awaitable[None]]
