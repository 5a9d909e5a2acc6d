"""Opens an issued document with the account that holds it, for whoever changes how it stands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from invoicing.domain.invoice import DocumentKind
from invoicing.domain.standing import Standing
from invoicing.ports import Account, Books

REASON_MAX = 500
KEY_MAX = 255


class InvoiceStateError(ConflictError):
    """The document does not stand so that this can be done."""

    code = "invoice_state"


class PaymentUnderWayError(ConflictError):
    """A payment of the invoice is under way; try again when it has ended."""

    code = "payment_under_way"


class KeyUsedError(ConflictError):
    """The key was used before, for something else."""

    code = "key_used"


@dataclass(frozen=True, slots=True)
class OpenInvoice:
    """A document with its account, both locked until the transaction ends."""

    account: Account
    standing: Standing


@asynccontextmanager
async def open_invoice(reference: str, books: Books) -> AsyncIterator[OpenInvoice]:
    """Lock a document by its number or id; raises `NotFoundError`."""
    tenant_id = await books.tenant_of(reference)
    if tenant_id is None:
        raise NotFoundError(f"no invoice {reference[:80]!r}")
    async with books.open_account(tenant_id) as account:
        standing = await account.issued.lock(reference) if account is not None else None
        if account is None or standing is None:
            raise NotFoundError(f"no invoice {reference[:80]!r}")
        yield OpenInvoice(account, standing)


def check_issued(standing: Standing) -> None:
    """Refuse what is no issued invoice: drafts and credit notes; raises `InvoiceStateError`."""
    if standing.kind is DocumentKind.CREDIT_NOTE:
        raise InvoiceStateError(f"{standing.name} is a credit note: what it gave back is billed by a new invoice")
    if standing.status == "draft":
        raise InvoiceStateError(f"{standing.name} is a draft: it changes with what it is made from until it is final")


def check_reason(reason: str) -> str:
    """Return the reason without blanks around it; raises `InvalidInputError` (`invalid_reason`)."""
    shown = reason.strip()
    if not (1 <= len(shown) <= REASON_MAX and shown.isprintable()):
        raise InvalidInputError([Fault("invalid_reason", f"expected 1 to {REASON_MAX} printable characters", "reason")])
    return shown


def check_key(key: str) -> str:
    """Return the key; raises `InvalidInputError` (`invalid_key`)."""
    if not (1 <= len(key) <= KEY_MAX and key.isprintable()):
        raise InvalidInputError([Fault("invalid_key", f"expected 1 to {KEY_MAX} printable characters", "key")])
    return key
