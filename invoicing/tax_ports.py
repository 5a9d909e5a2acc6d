"""What tax needs from outside: VIES, and a tax service where the seller has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from invoicing.domain.tax.treatment import TaxTreatment


@dataclass(frozen=True, slots=True)
class VatAnswer:
    """What VIES said of a VAT number: whether it is in use, and the consultation number that proves the question.

    `name` and `address` are the holder's as far as its country tells them, `requester` is who asked, "" for nobody.
    """

    vat_number: str
    valid: bool
    checked_at: datetime
    consultation: str = ""
    requester: str = ""
    name: str = ""
    address: str = ""


class VatRegister(Protocol):
    """The member states' registers of VAT numbers."""

    async def check(self, vat_number: str, requester: str, now: datetime) -> VatAnswer:
        """Return whether a number is in use now; raises `UnavailableError` where that cannot be said."""
        ...


class VatChecks(Protocol):
    """Where answers are kept."""

    async def due(
        self, *, before: datetime | None = None, tenant_id: str | None = None, limit: int = 1_000
    ) -> list[tuple[str, str]]:
        """Return tenants of the Union with their numbers, those never asked about first.

        With `before` only those not asked about since, without it all.
        """
        ...

    async def record(self, tenant_id: str, answer: VatAnswer) -> bool:
        """Keep the answer and make it the tenant's present one; false if the tenant has another number by now."""
        ...


@dataclass(frozen=True, slots=True)
class TaxQuestion:
    """One line as a tax service is asked about it; `amount` as it is priced, `on` its tax point."""

    reference: str
    amount: Decimal
    on: date


@dataclass(frozen=True, slots=True)
class TaxParty:
    """Who buys, as a tax service is told."""

    tenant_id: str
    country: str
    state: str
    postal_code: str
    address: str
    vat_number: str
    is_business: bool
    exempt: str


class TaxService(Protocol):
    """An outside service that says how supplies are taxed. It decides rates; amounts stay ours."""

    async def treatments(self, party: TaxParty, questions: Sequence[TaxQuestion], currency: str) -> list[TaxTreatment]:
        """Return a treatment per question, in order.

        Raises `UnavailableError`, and `InvalidInputError` where the service refuses the place.
        """
        ...
