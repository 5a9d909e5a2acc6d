"""Invoices one-time items: a setup fee, an add-on sold once, anything with a price and a quantity, at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from core.clock import Clock
from core.errors import Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from core.money import round_to_minor
from core.period import Period
from invoicing.domain.invoice import Draft, Origin
from invoicing.domain.lines import Line
from invoicing.domain.standing import Standing
from invoicing.issue_document import NO_PLAN, Heading, issue_invoice, tax_draft
from invoicing.open_invoice import InvoiceStateError, KeyUsedError, check_key
from invoicing.ports import Account, Books
from invoicing.terms import Terms
from rating.domain.digest import digest_of
from rating.domain.price import plain
from rating.rate_charges import ENGINE_VERSION

ITEMS_MAX = 100
DESCRIPTION_MAX = 200
_LARGEST = Decimal(10) ** 12
_PLACES_MAX = 12


@dataclass(frozen=True, slots=True)
class OneTimeItem:
    """Something sold once: `quantity` times `unit_amount`, in the tenant's currency."""

    description: str
    unit_amount: Decimal
    quantity: Decimal = Decimal(1)
    unit: str = ""

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "description": self.description,
            "unit_amount": plain(self.unit_amount),
            "quantity": plain(self.quantity),
            "unit": self.unit,
        }


async def issue_one_time(
    tenant_id: str, items: list[OneTimeItem], *, key: str, books: Books, terms: Terms, clock: Clock
) -> Standing:
    """Issue an invoice over the items; the same `key` issues once and returns the same invoice again.

    Raises `NotFoundError` (no such tenant), `InvalidInputError` with every fault (`invalid_items`, `invalid_text`,
    `invalid_amount`, `invalid_quantity`, `invalid_key`), `KeyUsedError`, `InvoiceStateError` (a parked account),
    `UndeterminedTaxError`.
    """
    cause = (tenant_id, "one_time", check_key(key))
    check_items(items)
    asked = {"items": [item.as_document() for item in items]}
    now = clock.now()
    async with books.open_account(tenant_id) as account:
        if account is None:
            raise NotFoundError(f"no tenant {tenant_id[:80]!r}")
        before = await account.issued.lock(derive_id("inv", *cause))
        if before is not None:
            if before.asked_sha256 != digest_of(asked):
                raise KeyUsedError(f"the key {key[:80]!r} made {before.name}, which says something else")
            return before
        if account.buyer.parked_reason is not None:
            raise InvoiceStateError(f"the account is parked: {account.buyer.parked_reason}")
        draft = _draft(account, items, cause, now)
        heading = Heading(Origin.ONE_TIME, NO_PLAN, account.buyer.time_zone, terms.due_days, asked=asked)
        taxed = await tax_draft(account, draft, heading, terms, now)
        invoice = await issue_invoice(account, taxed, heading, terms, now)
        issued = await account.issued.lock(invoice.draft.invoice_id)
    if issued is None:
        raise NotFoundError(f"invoice {invoice.number} is not there")
    return issued


def check_items(items: list[OneTimeItem]) -> None:
    """Refuse items that make no sense, with every fault; raises `InvalidInputError`."""
    faults = []
    if not 1 <= len(items) <= ITEMS_MAX:
        faults.append(Fault("invalid_items", f"expected 1 to {ITEMS_MAX} items, got {len(items)}", "items"))
    for index, item in enumerate(items[:ITEMS_MAX]):
        place = f"items.{index}"
        if not (1 <= len(item.description.strip()) <= DESCRIPTION_MAX and item.description.isprintable()):
            reason = f"expected 1 to {DESCRIPTION_MAX} printable characters"
            faults.append(Fault("invalid_text", reason, f"{place}.description"))
        if len(item.unit) > DESCRIPTION_MAX or not (item.unit.isprintable() or not item.unit):
            faults.append(Fault("invalid_text", "expected printable characters", f"{place}.unit"))
        if not _is_fine(item.unit_amount) or item.unit_amount < 0:
            faults.append(Fault("invalid_amount", "expected an amount of at least zero", f"{place}.unit_amount"))
        if not _is_fine(item.quantity) or item.quantity <= 0:
            faults.append(Fault("invalid_quantity", "expected a quantity above zero", f"{place}.quantity"))
    if faults:
        raise InvalidInputError(faults)


def _is_fine(value: Decimal) -> bool:
    if not value.is_finite() or abs(value) >= _LARGEST:
        return False
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -_PLACES_MAX


def _draft(account: Account, items: list[OneTimeItem], cause: tuple[str, ...], now: datetime) -> Draft:
    buyer = account.buyer
    # What is sold once is for the day of its invoice, as the tenant counts days.
    day = now.astimezone(ZoneInfo(buyer.time_zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    period = Period(day.astimezone(now.tzinfo), (day + timedelta(days=1)).astimezone(now.tzinfo))
    invoice_id = derive_id("inv", *cause)
    lines = tuple(_line(item, index, invoice_id, buyer.currency) for index, item in enumerate(items, 1))
    return Draft(None, period, 1, buyer.currency, lines, cause)


def _line(item: OneTimeItem, index: int, invoice_id: str, currency: str) -> Line:
    exact = item.unit_amount * item.quantity
    amount = round_to_minor(exact, currency)
    document = item.as_document()
    step = f"{plain(item.quantity)} × {plain(item.unit_amount)} = {plain(exact)}"
    return Line(
        item_key=f"{invoice_id}|one_time|{index}",
        charge_id=f"item-{index}",
        kind="one_time",
        description=item.description.strip(),
        meter_id=None,
        dimensions=(),
        quantity=item.quantity,
        unit=item.unit,
        unit_amount=item.unit_amount,
        per=1,
        exact_amount=exact,
        amount=amount,
        price_digest=digest_of(document),
        evidence={"engine_version": ENGINE_VERSION, "item": document, "per": 1, "steps": [step], "by_hand": True},
    )
