"""Grants a tenant credit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.errors import BrokenInvariantError, ConflictError, NotFoundError
from core.ids import derive_id
from rating.credit_ledger import CreditLedger
from rating.domain.credit import CreditGrant
from subscriptions.coupon_ports import SaleFacts
from subscriptions.create_coupon import check_limits
from subscriptions.domain.coupon_wish import read_credit


class CreditExistsError(ConflictError):
    """The key was used before, for a credit with other terms."""

    code = "credit_exists"


async def grant_credit(
    tenant_id: str, document: Mapping[str, Any], *, key: str, ledger: CreditLedger, facts: SaleFacts, now: datetime
) -> tuple[CreditGrant, bool]:
    """Grant the credit a document describes (see `read_credit`); returns it and whether it is new.

    The same `key` grants once: asked again with the same terms, what there is is returned. Raises `NotFoundError` (no
    such tenant), `InvalidInputError` with every fault, `CreditExistsError`.
    """
    currency = await facts.currency_of(tenant_id)
    if currency is None:
        raise NotFoundError(f"no tenant {tenant_id[:80]!r}")
    grant = read_credit(derive_id("credit", tenant_id, key), tenant_id, document, currency=currency, now=now)
    await check_limits(facts, plans=grant.plans, meters=grant.meters)
    if await ledger.add_grant(grant):
        return grant, True
    existing = await ledger.lock_credit(grant.grant_id)
    if existing is None:
        raise BrokenInvariantError(f"credit {grant.grant_id} is both there and not")
    asked = replace(grant, granted_at=existing.grant.granted_at)
    if "effective_at" not in document:
        asked = replace(asked, effective_at=existing.grant.effective_at)
    if asked != existing.grant:
        raise CreditExistsError(f"the key {key[:80]!r} granted {existing.grant.grant_id} with other terms")
    return existing.grant, False
