"""Which accounts each cause moves. Owns the chart of who is debited and credited; amounts come from the causes.

Every function returns the entries of one cause, none if it moves nothing. Amounts are positive unless said otherwise,
in whole minor units of `currency`; `docs/ledger.md` shows the same as a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum

from core.errors import must_hold
from ledger.domain.entry import Account, AccountKind, EntryKind, LedgerEntry, entry_of

Entries = tuple[LedgerEntry, ...]
# Money by bank is put down when the statement shows it, before it is known whose it is.
WIRE = "wire"
PREPAID = "prepaid"


class CreditSource(Enum):
    """Where a credit's value comes from: the account that its grant debits."""

    PREPAID = "prepaid"
    PROMOTION = "promotion"
    CREDIT_NOTE = "credit_note"
    OVERPAYMENT = "overpayment"


def of_invoice(
    invoice_id: str,
    tenant_id: str,
    currency: str,
    *,
    subtotal: Decimal,
    taxes: Mapping[str, Decimal],
    at: datetime,
) -> Entries:
    """Return the entry of a finalized invoice: its total is owed. What credits pay of it is entries of those.

    `taxes` are the tax amounts by place; those of zero leave no posting.
    """
    return entry_of(
        EntryKind.INVOICE, invoice_id, at, _billed(tenant_id, currency, subtotal, taxes, AccountKind.RECEIVABLE)
    )


def of_credit_note(
    credit_note_id: str,
    tenant_id: str,
    currency: str,
    *,
    subtotal: Decimal,
    taxes: Mapping[str, Decimal],
    applied: Decimal,
    returned: Decimal = Decimal(0),
    written_off: Decimal = Decimal(0),
    at: datetime,
) -> Entries:
    """Return the entry of a credit note, whose amounts are negative as the books have them.

    `applied` (positive) is what it takes off open invoices, `written_off` how much of that off invoices given up,
    `returned` what goes back to credits that had been drawn (the entries of those draws raise the receivable again).
    The rest is to be given back, as a new credit or as money, and waits on `refunds` for the entry of that.
    """
    total, off = subtotal + _sum(taxes), applied + returned
    must_hold(min(applied, returned) >= 0, f"credit note {credit_note_id} applies a negative amount")
    must_hold(total <= 0 and off <= -total, f"credit note {credit_note_id}: {off:f} applied of {-total:f}")
    must_hold(0 <= written_off <= applied, f"credit note {credit_note_id}: {written_off:f} of what was given up")
    moves = [
        *_billed(tenant_id, currency, subtotal, taxes, AccountKind.REFUNDS),
        (Account(AccountKind.REFUNDS, tenant_id), currency, off),
        (Account(AccountKind.RECEIVABLE, tenant_id), currency, written_off - off),
        (Account(AccountKind.BAD_DEBT, tenant_id), currency, -written_off),
    ]
    return entry_of(EntryKind.CREDIT_NOTE, credit_note_id, at, moves)


def of_void(
    invoice_id: str,
    tenant_id: str,
    currency: str,
    *,
    subtotal: Decimal,
    taxes: Mapping[str, Decimal],
    at: datetime,
) -> Entries:
    """Return the entry of a voided invoice, given the invoice's own amounts: the reverse of its first entry."""
    moves = _billed(tenant_id, currency, subtotal, taxes, AccountKind.RECEIVABLE)
    return entry_of(EntryKind.VOID, invoice_id, at, [(account, of, -amount) for account, of, amount in moves])


def of_write_off(invoice_id: str, tenant_id: str, currency: str, *, open_amount: Decimal, at: datetime) -> Entries:
    """Return the entry of an invoice given up: what is open of it is no longer expected."""
    return _move(
        EntryKind.WRITE_OFF, invoice_id, at, currency, open_amount,
        debit=Account(AccountKind.BAD_DEBT, tenant_id), credit=Account(AccountKind.RECEIVABLE, tenant_id),
    )  # fmt: skip


def of_settlement(
    payment_id: str,
    tenant_id: str,
    currency: str,
    *,
    provider: str,
    amount: Decimal,
    at: datetime,
    written_off: bool = False,
) -> Entries:
    """Return the entry of money for an invoice; a wire's is in the ledger already and finds its invoice now.

    For an invoice that was `written_off` it lowers the bad debt.
    """
    kind = AccountKind.BAD_DEBT if written_off else AccountKind.RECEIVABLE
    source = Account(AccountKind.UNALLOCATED, None) if provider == WIRE else cash(provider, tenant_id)
    return _move(EntryKind.SETTLEMENT, payment_id, at, currency, amount, debit=source, credit=Account(kind, tenant_id))


def of_refund(
    refund_id: str, tenant_id: str, currency: str, *, provider: str, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of money given back to the payer."""
    return _move(
        EntryKind.REFUND, refund_id, at, currency, amount,
        debit=Account(AccountKind.REFUNDS, tenant_id), credit=cash(provider, tenant_id),
    )  # fmt: skip


def of_failed_refund(
    refund_id: str, tenant_id: str, currency: str, *, provider: str, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of a refund that the payer's bank sent back: the money is here again and still to be given."""
    return _move(
        EntryKind.REFUND_FAILED, refund_id, at, currency, amount,
        debit=cash(provider, tenant_id), credit=Account(AccountKind.REFUNDS, tenant_id),
    )  # fmt: skip


def of_dispute_opened(
    dispute_id: str, tenant_id: str, currency: str, *, provider: str, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of money that the payer's bank has taken back until the dispute is decided."""
    return _move(
        EntryKind.DISPUTE_OPENED, dispute_id, at, currency, amount,
        debit=Account(AccountKind.DISPUTED, tenant_id), credit=cash(provider, tenant_id),
    )  # fmt: skip


def of_dispute_won(
    dispute_id: str, tenant_id: str, currency: str, *, provider: str, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of disputed money that came back."""
    return _move(
        EntryKind.DISPUTE_WON, dispute_id, at, currency, amount,
        debit=cash(provider, tenant_id), credit=Account(AccountKind.DISPUTED, tenant_id),
    )  # fmt: skip


def of_dispute_lost(dispute_id: str, tenant_id: str, currency: str, *, amount: Decimal, at: datetime) -> Entries:
    """Return the entry of disputed money that is gone."""
    return _move(
        EntryKind.DISPUTE_LOST, dispute_id, at, currency, amount,
        debit=Account(AccountKind.BAD_DEBT, tenant_id), credit=Account(AccountKind.DISPUTED, tenant_id),
    )  # fmt: skip


def of_credit_granted(
    grant_id: str, number: int, tenant_id: str, currency: str, *, source: CreditSource, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of a credit granted. `number` is that of the credit's own entry."""
    return _credit(grant_id, number, tenant_id, currency, -amount, _source_of(source, tenant_id), at)


def of_credit_drawn(
    grant_id: str, number: int, tenant_id: str, currency: str, *, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of a credit that pays for an invoice; a negative amount is one that gives it back."""
    return _credit(grant_id, number, tenant_id, currency, amount, Account(AccountKind.RECEIVABLE, tenant_id), at)


def of_credit_taken_back(
    grant_id: str, number: int, tenant_id: str, currency: str, *, source: CreditSource, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of a credit voided or refunded: it goes back to where it came from."""
    return _credit(grant_id, number, tenant_id, currency, amount, _source_of(source, tenant_id), at)


def of_credit_expired(
    grant_id: str, number: int, tenant_id: str, currency: str, *, source: CreditSource, amount: Decimal, at: datetime
) -> Entries:
    """Return the entry of a credit that ended unused: breakage if the tenant had a claim to it."""
    kind = AccountKind.PROMOTIONS if source is CreditSource.PROMOTION else AccountKind.BREAKAGE
    return _credit(grant_id, number, tenant_id, currency, amount, Account(kind, tenant_id), at)


def of_bank_receipt(receipt_id: str, currency: str, *, amount: Decimal, at: datetime) -> Entries:
    """Return the entry of money on a bank statement: it is here, and belongs to nothing yet."""
    return _move(
        EntryKind.BANK_RECEIPT, receipt_id, at, currency, amount,
        debit=cash(WIRE, None), credit=Account(AccountKind.UNALLOCATED, None),
    )  # fmt: skip


def of_bank_return(return_id: str, currency: str, *, amount: Decimal, at: datetime) -> Entries:
    """Return the entry of money that fits nothing and was sent back to whoever it came from."""
    return _move(
        EntryKind.BANK_RETURN, return_id, at, currency, amount,
        debit=Account(AccountKind.UNALLOCATED, None), credit=cash(WIRE, None),
    )  # fmt: skip


def of_bank_fee(fee_id: str, tenant_id: str, currency: str, *, amount: Decimal, at: datetime) -> Entries:
    """Return the entry of what a bank kept of a transfer and we bear: the invoice is settled as if it had come.

    A negative amount is one that is not borne after all, for the transfer was taken back.
    """
    moves = [
        (Account(AccountKind.BANK_FEES, tenant_id), currency, amount),
        (Account(AccountKind.UNALLOCATED, None), currency, -amount),
    ]
    return entry_of(EntryKind.BANK_FEE, fee_id, at, moves)


def of_settlement_returned(
    return_id: str, tenant_id: str, currency: str, *, amount: Decimal, at: datetime, written_off: bool = False
) -> Entries:
    """Return the entry of a transfer that its bank took back: the invoice is owed again, the money fits it no more."""
    kind = AccountKind.BAD_DEBT if written_off else AccountKind.RECEIVABLE
    return _move(
        EntryKind.SETTLEMENT_RETURNED, return_id, at, currency, amount,
        debit=Account(kind, tenant_id), credit=Account(AccountKind.UNALLOCATED, None),
    )  # fmt: skip


def of_exchange(
    cause: str, account: Account, *, given: tuple[Decimal, str], got: tuple[Decimal, str], at: datetime
) -> Entries:
    """Return the entry of an amount on an account that was changed into another currency.

    Each currency balances by itself against `fx_difference`, where what the rates make of it stays.
    """
    difference = Account(AccountKind.FX_DIFFERENCE, account.tenant_id)
    (less, from_currency), (more, to_currency) = given, got
    must_hold(from_currency != to_currency, f"{cause}: nothing to exchange")
    moves = [
        (account, from_currency, -less),
        (difference, from_currency, less),
        (account, to_currency, more),
        (difference, to_currency, -more),
    ]
    return entry_of(EntryKind.EXCHANGE, cause, at, moves)


def cash(provider: str, tenant_id: str | None) -> Account:
    """Return the account of a provider's money."""
    return Account(AccountKind.CASH, tenant_id, provider)


def _billed(
    tenant_id: str, currency: str, subtotal: Decimal, taxes: Mapping[str, Decimal], against: AccountKind
) -> list[tuple[Account, str, Decimal]]:
    return [
        (Account(against, tenant_id), currency, subtotal + _sum(taxes)),
        (Account(AccountKind.REVENUE, tenant_id), currency, -subtotal),
        *((Account(AccountKind.TAX_PAYABLE, tenant_id, place), currency, -tax) for place, tax in taxes.items() if tax),
    ]


def _credit(
    grant_id: str, number: int, tenant_id: str, currency: str, amount: Decimal, against: Account, at: datetime
) -> Entries:
    """Return the entry that lowers a credit by `amount` (raises it if negative) against an account."""
    moves = [(Account(AccountKind.CUSTOMER_CREDIT, tenant_id), currency, amount), (against, currency, -amount)]
    return entry_of(EntryKind.CREDIT, f"{grant_id}/{number}", at, moves)


def _source_of(source: CreditSource, tenant_id: str) -> Account:
    return {
        CreditSource.PREPAID: cash(PREPAID, tenant_id),
        CreditSource.PROMOTION: Account(AccountKind.PROMOTIONS, tenant_id),
        CreditSource.CREDIT_NOTE: Account(AccountKind.REFUNDS, tenant_id),
        CreditSource.OVERPAYMENT: Account(AccountKind.UNALLOCATED, None),
    }[source]


def _move(
    kind: EntryKind, cause: str, at: datetime, currency: str, amount: Decimal, *, debit: Account, credit: Account
) -> Entries:
    must_hold(amount >= 0, f"{kind} {cause}: a negative amount")
    return entry_of(kind, cause, at, [(debit, currency, amount), (credit, currency, -amount)])


def _sum(taxes: Mapping[str, Decimal]) -> Decimal:
    return sum(taxes.values(), Decimal(0))
