"""Saves how a tenant pays: a customer and a method at the provider, their references here. Never card data."""

from __future__ import annotations

from core.clock import Clock
from core.errors import NotFoundError
from payments.ports import CustomerRegistrar, PayerStore, PaymentMethod


async def set_payment_method(
    tenant_id: str, method: str, *, store: PayerStore, registrar: CustomerRegistrar, clock: Clock
) -> PaymentMethod:
    """Attach `method` (the provider's id of it) to the tenant's customer, which is made on first use.

    Doing it twice names the same customer. Raises `NotFoundError` for an unknown tenant, `InvalidInputError` if the
    provider refuses the method, `UnavailableError` if it does not answer.
    """
    payer = await store.find_payer(tenant_id)
    if payer is None:
        raise NotFoundError(f"no tenant {tenant_id!r}")
    customer = await store.find_customer(tenant_id, registrar.name)
    if customer is None:
        customer = await registrar.create_customer(payer)
    reference = await registrar.attach_method(tenant_id, customer, method)
    saved = PaymentMethod(tenant_id, registrar.name, customer, reference)
    await store.save_method(saved, clock.now())
    return saved
