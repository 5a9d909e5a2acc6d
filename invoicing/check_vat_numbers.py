"""Asks VIES about tenants' VAT numbers and keeps its answers. Where there is none, the number stays unchecked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from core.clock import Clock
from core.errors import InvalidInputError, UnavailableError
from invoicing.tax_ports import VatAnswer, VatChecks, VatRegister

# A number can be struck off any day; one that was in use is asked about again after this.
RECHECK_AFTER = timedelta(days=30)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class VatCheck:
    """How asking about one number went: `answer` is None where there was none, `problem` says why."""

    tenant_id: str
    vat_number: str
    answer: VatAnswer | None = None
    problem: str = ""


async def check_vat_numbers(
    numbers: Sequence[tuple[str, str]], *, register: VatRegister, checks: VatChecks, requester: str, clock: Clock
) -> list[VatCheck]:
    """Ask about each (tenant, number), one after another, and keep what is answered.

    An outage of one member state does not keep the others from being asked. An answer that comes after the tenant's
    number was changed is kept as evidence and decides nothing.
    """
    found = []
    for tenant_id, vat_number in numbers:
        try:
            answer = await register.check(vat_number, requester, clock.now())
        except (UnavailableError, InvalidInputError) as problem:
            log.warning("vat.not_checked", tenant=tenant_id, vat_number=vat_number, reason=str(problem))
            found.append(VatCheck(tenant_id, vat_number, problem=str(problem)))
            continue
        is_present = await checks.record(tenant_id, answer)
        log.info("vat.checked", tenant=tenant_id, vat_number=vat_number, valid=answer.valid, present=is_present)
        found.append(VatCheck(tenant_id, vat_number, answer))
    return found
