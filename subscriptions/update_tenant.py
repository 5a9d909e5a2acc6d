"""Changes a tenant's particulars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from core.errors import Fault, InvalidInputError, NotFoundError
from subscriptions.domain.tenant import Tenant, check_tenant
from subscriptions.ports import SubscriptionStore

# What was counted and billed in them cannot be counted in others.
_FOR_EVER = frozenset({"tenant_id", "currency", "time_zone", "billing_anchor_day"})


async def update_tenant(tenant_id: str, changes: Mapping[str, object], *, store: SubscriptionStore) -> Tenant:
    """Give the tenant the new particulars and return it; invoices that were issued keep the old ones.

    A VAT number that was checked is unchecked once it, or the country, is another. Raises `NotFoundError`,
    `InvalidInputError` (`unknown_field`, `unchangeable_field`, `invalid_type`, and all of `check_tenant`).
    """
    present = await store.tenant(tenant_id, lock=True)
    if present is None:
        raise NotFoundError(f"no tenant {tenant_id!r}")
    fields = asdict(present)
    faults = []
    for name, value in changes.items():
        if name not in fields:
            faults.append(Fault("unknown_field", f"a tenant has no {name[:40]!r}", name[:40]))
        elif name in _FOR_EVER and value != fields[name]:
            faults.append(Fault("unchangeable_field", f"{name} is for ever: add another tenant", name))
        elif type(value) is not type(fields[name]):
            expected = "true or false" if isinstance(fields[name], bool) else "text"
            faults.append(Fault("invalid_type", f"expected {expected}", name))
    if faults:
        raise InvalidInputError(faults)
    changed = check_tenant(Tenant(**{**fields, **changes}))
    if changed != present:
        is_other_number = (changed.vat_number, changed.country) != (present.vat_number, present.country)
        await store.put_tenant(changed, vat_unchecked=is_other_number)
    return changed
