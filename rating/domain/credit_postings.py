"""What an entry of a credit moves in the ledger (`ledger/`). Owns from where a grant's value comes. Pure."""

from __future__ import annotations

from core.ids import derive_id
from ledger.domain import postings
from ledger.domain.postings import CreditSource, Entries
from rating.domain.credit import CreditEntry, CreditGrant, CreditKind, EntryKind

# Reasons that only the books give: what stands behind such a credit is in the ledger already. By hand they are refused.
CREDIT_NOTE = "credit_note"
OVERPAYMENT = "overpayment"
RESERVED_REASONS = {CREDIT_NOTE: CreditSource.CREDIT_NOTE, OVERPAYMENT: CreditSource.OVERPAYMENT}


def credit_of_note(tenant_id: str, credit_note_id: str) -> str:
    """Return the id of the credit that a credit note's paid value becomes."""
    return derive_id("credit", tenant_id, credit_note_id)


def source_of(grant: CreditGrant) -> CreditSource:
    """Return from where a grant's value comes."""
    if grant.kind is CreditKind.PROMOTIONAL:
        return CreditSource.PROMOTION
    return RESERVED_REASONS.get(grant.reason, CreditSource.PREPAID)


def postings_of(entry: CreditEntry, grant: CreditGrant) -> Entries:
    """Return the ledger's entry of a credit's entry; none for one that moved nothing."""
    of, source, amount, at = (entry.grant_id, entry.number), source_of(grant), abs(entry.amount), entry.recorded_at
    tenant_id, currency = entry.tenant_id, entry.currency
    match entry.kind:
        case EntryKind.GRANTED:
            return postings.of_credit_granted(*of, tenant_id, currency, source=source, amount=amount, at=at)
        case EntryKind.DRAWN | EntryKind.RETURNED:
            return postings.of_credit_drawn(*of, tenant_id, currency, amount=-entry.amount, at=at)
        case EntryKind.EXPIRED:
            return postings.of_credit_expired(*of, tenant_id, currency, source=source, amount=amount, at=at)
        case EntryKind.VOIDED | EntryKind.REFUNDED:
            return postings.of_credit_taken_back(*of, tenant_id, currency, source=source, amount=amount, at=at)
