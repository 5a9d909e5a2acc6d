"""Gives back part of an invoice by a person's hand: an amount, some of its lines, or all that is left of it.

What was billed stays billed: the next run does not bill it again. To bill anew what was wrong, reissue the invoice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from core.clock import Clock
from core.errors import Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from core.money import is_whole_minor, round_to_minor
from invoicing.domain.credit_note import given_back, lowered_together, shares_of, value_of
from invoicing.domain.invoice import Draft, Origin
from invoicing.domain.lines import Line, Share
from invoicing.domain.standing import Standing
from invoicing.issue_document import Heading, issue_credit_note
from invoicing.open_invoice import KeyUsedError, check_issued, check_key, check_reason, open_invoice
from invoicing.ports import Account, Books
from invoicing.terms import Terms
from rating.domain.digest import digest_of
from rating.domain.price import plain


@dataclass(frozen=True, slots=True)
class CreditWish:
    """What is to be given back, with tax: an amount of the whole, or of lines by position (None: all that is left).

    Neither: all that is left of the invoice. A line is given back with what coupons took off it, and with all lines of
    its charge where the charge has a discount or a maximum of its own. `is_refunded`: what was paid goes back through
    its payments in place of a credit, which whoever calls sees to in the same transaction.
    """

    amount: Decimal | None = None
    lines: Mapping[int, Decimal | None] = field(default_factory=dict)
    is_refunded: bool = False

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON."""
        lines = {str(at): None if amount is None else plain(amount) for at, amount in sorted(self.lines.items())}
        asked = {"amount": None if self.amount is None else plain(self.amount), "lines": lines}
        # Only where it is so: what was asked for before there were refunds stays what it was.
        return {**asked, "is_refunded": True} if self.is_refunded else asked


async def credit_invoice(
    reference: str, wish: CreditWish, *, reason: str, key: str, books: Books, terms: Terms, clock: Clock
) -> Standing:
    """Issue a credit note over part of an invoice; the same `key` gives back once, and returns the same note again.

    Raises `NotFoundError` (the invoice, a line), `InvalidInputError` (`exceeds_invoice`, `invalid_amount`,
    `nothing_left`, `lines_together`, `invalid_reason`, `invalid_key`), `InvoiceStateError` (a draft, a credit note,
    void), `KeyUsedError`.
    """
    why, now = check_reason(reason), clock.now()
    check_key(key)
    async with open_invoice(reference, books) as opened:
        account, standing = opened.account, opened.standing
        cause = (account.buyer.tenant_id, "credit_note", key)
        asked = {"invoice": standing.invoice_id, "reason": why, **wish.as_document()}
        before = await account.issued.lock(derive_id("inv", *cause))
        if before is not None:
            if before.asked_sha256 != digest_of(asked):
                raise KeyUsedError(f"the key {key[:80]!r} made {before.name}, which says something else")
            return before
        check_issued(standing)
        lines = await _lines(account, standing, wish)
        draft = Draft(
            standing.subscription_id,
            standing.period,
            await account.issued.next_sequence(standing.subscription_id, standing.period),
            standing.currency,
            tuple(lines),
            cause,
        )
        heading = await heading_of_invoice(account, standing, Origin.MANUAL, why, asked)
        note = await issue_credit_note(account, draft, heading, terms, now)
        issued = await account.issued.lock(note.draft.invoice_id)
    if issued is None:
        raise NotFoundError(f"credit note {note.number} is not there")
    return issued


async def heading_of_invoice(
    account: Account, standing: Standing, origin: Origin, reason: str, asked: Mapping[str, Any] | None = None
) -> Heading:
    """Return the heading of a credit note over an invoice: the plan and the zone are those that it names."""
    shown = await account.issued.snapshot(standing.invoice_id)
    return Heading(origin, shown["plan"], shown.get("time_zone") or "UTC", 0, reason=reason, asked=asked)


async def _lines(account: Account, standing: Standing, wish: CreditWish) -> list[Line]:
    shares = shares_of(standing.invoice_id, await account.issued.billed_with(standing.invoice_id))
    currency = standing.currency
    if wish.amount is not None and wish.lines:
        raise InvalidInputError([Fault("ambiguous", "name an amount of the whole or lines, not both", "amount")])
    if value_of(shares) <= 0:
        raise InvalidInputError([Fault("nothing_left", f"all of {standing.name} has been taken back", "")])
    if not wish.lines:
        amount = value_of(shares) if wish.amount is None else _checked(wish.amount, currency, "amount")
        return given_back(shares, amount, currency)
    positions = dict(enumerate(await account.issued.lines(standing.invoice_id), 1))
    found: list[Line] = []
    for position, wished in wish.lines.items():
        line = positions.get(position)
        if line is None:
            raise NotFoundError(f"{standing.name} has {len(positions)} lines, and no line {position}")
        together = _together(line, shares)
        left = value_of(together)
        if left <= 0:
            raise InvalidInputError([Fault("nothing_left", f"nothing is left of line {position}", f"lines.{position}")])
        amount = left if wished is None else _checked(wished, currency, f"lines.{position}")
        found += given_back(together, amount, currency)
    if len({line.item_key for line in found}) < len(found):
        reason = "some of these lines are given back together; name one of them, or an amount of the whole"
        raise InvalidInputError([Fault("lines_together", reason, "lines")])
    return found


def _together(line: Line, shares: list[Share]) -> list[Share]:
    own = [share for share in shares if share.line.item_key == line.item_key]
    return [one for share in own for one in lowered_together(share, shares)]


def _checked(amount: Decimal, currency: str, path: str) -> Decimal:
    if not is_whole_minor(amount, currency) or amount <= 0:
        reason = f"expected an amount above zero in whole minor units of {currency}, got {amount}"
        raise InvalidInputError([Fault("invalid_amount", reason, path)])
    return round_to_minor(amount, currency)
