"""What the life of issued documents needs from the store, within the transaction that holds the account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from core.period import Period
from invoicing.domain.invoice import Draft
from invoicing.domain.lines import Billed, Line
from invoicing.domain.standing import Application, Standing


class IssuedDocuments(Protocol):
    """The documents of one tenant's account."""

    async def lock(self, reference: str) -> Standing | None:
        """Return one by its number or id, a draft by its id, None if there is none; nobody changes it meanwhile."""
        ...

    async def invoices(self, subscription_id: str | None) -> list[Standing]:
        """Return a subscription's issued invoices (None: the tenant's one-time ones), by issue, without void ones.

        Locked like `lock`.
        """
        ...

    async def lines(self, invoice_id: str) -> list[Line]:
        """Return a document's lines by position."""
        ...

    async def snapshot(self, invoice_id: str) -> Mapping[str, Any]:
        """Return what an issued document showed."""
        ...

    async def next_sequence(self, subscription_id: str | None, period: Period) -> int:
        """Return the sequence that the period's next document gets, drafts and void ones counted."""
        ...

    async def billed_with(self, invoice_id: str) -> dict[str, Billed]:
        """Return what all documents billed of the items that an invoice billed or that lower it, by item key."""
        ...

    async def corrected_by(self, invoice_id: str) -> list[Standing]:
        """Return the documents that count and have a line that corrects this one, by issue."""
        ...

    async def replacement_of(self, invoice_id: str) -> list[Standing]:
        """Return the documents that were issued anew for an invoice, by issue; void ones, too."""
        ...

    async def returned_by(self, invoice_id: str) -> list[str]:
        """Return the credit notes that gave something back to the credits that an invoice had drawn."""
        ...

    async def apply(self, credit_note_id: str, application: Application, at: datetime) -> None:
        """Write down where a credit note's value went, and lower what is open of the invoice, which may settle it."""
        ...

    async def close(self, invoice_id: str, status: str, *, reason: str, at: datetime) -> None:
        """Let an invoice be `void` or `uncollectible`."""
        ...

    async def announce_void(self, standing: Standing, at: datetime) -> None:
        """Say that an invoice was voided, in this transaction."""
        ...

    async def put_draft(self, draft: Draft, finalize_at: datetime, now: datetime) -> None:
        """Store a proposal, in place of the one of the same id."""
        ...

    async def drafts(self, subscription_id: str, period: Period) -> list[Standing]:
        """Return the drafts of a billing period, locked."""
        ...

    async def drop_draft(self, invoice_id: str) -> None:
        """Take a draft away; anything else stays."""
        ...


class DraftRegister(Protocol):
    """Where drafts are looked for."""

    async def drafts(self, *, due_at: datetime | None, tenant_id: str | None) -> Sequence[Standing]:
        """Return drafts by the end of their grace; those only whose grace is over by `due_at`, if it is given."""
        ...
