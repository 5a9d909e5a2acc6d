"""Determines the tax of a document's lines and rounds it: by the tables, or by a tax service where there is one.

A line that takes back what an invoice billed keeps the treatment it was billed with, whatever holds now; every other is
decided by its tax point, the last day of its period or the day of issue, whichever comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from msgspec import structs

from core.errors import BrokenInvariantError, Fault, InvalidInputError
from invoicing.domain.exchange import NO_RATES, ExchangeRates, FrozenRate
from invoicing.domain.invoice import Buyer, Draft
from invoicing.domain.lines import Line
from invoicing.domain.tax.determine import determine_tax
from invoicing.domain.tax.seller_tax import NO_TAX, SellerTax
from invoicing.domain.tax.tables import TaxTables
from invoicing.domain.tax.taxed_lines import Bucket, TaxableLine, TaxedBefore, tax_lines
from invoicing.domain.tax.treatment import TaxBehavior, TaxTreatment
from invoicing.tax_ports import TaxParty, TaxQuestion, TaxService

# A period's end is the first instant that is no longer of it.
_INSTANT = timedelta(microseconds=1)


class UndeterminedTaxError(BrokenInvariantError):
    """How the tenant is taxed cannot be said: nothing is invoiced until a person has looked, and no rate is guessed."""

    code = "undetermined_tax"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(f"tax: {fault}" for fault in faults))


class TaxedBooks(Protocol):
    """What determining tax reads of the books."""

    async def taxed_before(self, invoice_ids: Sequence[str]) -> Mapping[Bucket, TaxedBefore]:
        """Return what invoices and all that was taken back of them came to, by what is rounded together."""
        ...


@dataclass(frozen=True, slots=True)
class TaxRules:
    """How the seller charges tax, by which tables, with which exchange rates, or by which service."""

    seller: SellerTax = NO_TAX
    tables: TaxTables = field(default_factory=TaxTables)
    exchange: ExchangeRates = NO_RATES
    service: TaxService | None = None


async def determine_taxes(
    draft: Draft, *, buyer: Buyer, books: TaxedBooks, rules: TaxRules, issued_at: datetime, time_zone: str
) -> Draft:
    """Return the draft with the tax of every line.

    Days are those of `time_zone`. Raises `UndeterminedTaxError`, and `UnavailableError` where a tax service does not
    answer.
    """
    zone = ZoneInfo(time_zone)
    origins = [line.corrects_invoice if line.treatment is not None else None for line in draft.lines]
    treatments = await _treatments(draft, buyer, rules, issued_at, zone)
    known = await books.taxed_before(sorted({origin for origin in origins if origin is not None}))
    taxable = [
        TaxableLine(line.amount, treatment, origin)
        for line, treatment, origin in zip(draft.lines, treatments, origins, strict=True)
    ]
    taxed = tax_lines(taxable, draft.currency, before=known)
    lines = [
        structs.replace(line, treatment=one.treatment, tax_amount=one.tax, tax_origin=origin)
        for line, one, origin in zip(draft.lines, taxed.lines, origins, strict=True)
    ]
    return replace(draft, lines=tuple(lines))


async def _treatments(
    draft: Draft, buyer: Buyer, rules: TaxRules, issued_at: datetime, zone: ZoneInfo
) -> list[TaxTreatment]:
    points = [tax_point(line, draft, issued_at, zone) for line in draft.lines]
    if rules.service is not None and rules.seller.regime != "none":
        return await _by_service(draft, points, buyer, rules.service, rules.seller.prices)
    decided: dict[date, TaxTreatment | Fault] = {}
    found = []
    for line, point in zip(draft.lines, points, strict=True):
        if line.treatment is not None:
            found.append(line.treatment)
            continue
        if point not in decided:
            decided[point] = determine_tax(rules.seller, buyer, point, rules.tables)
        treatment = decided[point]
        if isinstance(treatment, Fault):
            raise UndeterminedTaxError([treatment])
        found.append(treatment)
    return found


async def _by_service(
    draft: Draft, points: Sequence[date], buyer: Buyer, service: TaxService, prices: TaxBehavior
) -> list[TaxTreatment]:
    open_ones = [index for index, line in enumerate(draft.lines) if line.treatment is None]
    questions = [TaxQuestion(str(index), draft.lines[index].amount, points[index]) for index in open_ones]
    party = TaxParty(
        buyer.tenant_id,
        buyer.country,
        buyer.state,
        buyer.postal_code,
        buyer.address,
        buyer.vat_number,
        buyer.is_business,
        buyer.tax_exempt,
    )
    answers: dict[int, TaxTreatment] = {}
    if questions:
        try:
            treatments = await service.treatments(party, questions, draft.currency)
        except InvalidInputError as refused:
            raise UndeterminedTaxError(refused.faults) from refused
        answers = {index: replace(one, behavior=prices) for index, one in zip(open_ones, treatments, strict=True)}
    return [line.treatment or answers[index] for index, line in enumerate(draft.lines)]


def tax_point(line: Line, draft: Draft, issued_at: datetime, zone: ZoneInfo) -> date:
    """Return the day whose rate counts: the last of the line's period, or the day of issue if that comes first."""
    period = line.period or draft.period
    return min((period.end - _INSTANT).astimezone(zone).date(), issued_at.astimezone(zone).date())


def freeze_exchange(draft: Draft, rules: TaxRules, issued_at: datetime, time_zone: str) -> FrozenRate | None:
    """Return the rate of the day of issue where the seller's tax returns are in another currency and tax is charged.

    Raises `UndeterminedTaxError` where no rate is known (VAT Directive, Art. 230: the tax is stated in the currency of
    the member state).
    """
    currency = rules.seller.currency
    if rules.seller.regime == "none" or currency == draft.currency or not draft.tax:
        return None
    on = issued_at.astimezone(ZoneInfo(time_zone)).date()
    found = rules.exchange.freeze(draft.tax, draft.currency, currency, on)
    if isinstance(found, Fault):
        raise UndeterminedTaxError([found])
    return found
