"""Begins to save a payment method: the provider's own form asks for it, and a webhook says that it is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.errors import NotFoundError
from payments.domain.card_data import refuse_card_numbers
from payments.method_ports import MethodRegistrar, MethodSetup, SavedMethod
from payments.ports import CustomerRegistrar, PayerStore


class Registrar(CustomerRegistrar, MethodRegistrar, Protocol):
    """A provider that keeps customers and lets them save methods in its own form."""


async def begin_method_setup(
    tenant_id: str, kinds: Sequence[str], request_key: str, *, payers: PayerStore, registrar: Registrar
) -> MethodSetup:
    """Return the secret with which the tenant's browser opens the provider's form; the same key begins the same.

    The customer is made on first use; the webhook finds its tenant by the metadata. Raises `NotFoundError` for an
    unknown tenant, `InvalidInputError` if the provider refuses, `UnavailableError` if it does not answer.
    """
    refuse_card_numbers({"kinds": " ".join(kinds), "request_key": request_key})
    payer = await payers.find_payer(tenant_id)
    if payer is None:
        raise NotFoundError(f"no tenant {tenant_id!r}")
    customer = await payers.find_customer(tenant_id, registrar.name)
    if customer is None:
        # The same tenant, name and e-mail give the same customer, so nothing has to be kept before a method is saved.
        customer = await registrar.create_customer(payer)
    return await registrar.begin_setup(tenant_id, customer, kinds, request_key)


async def list_saved_methods(tenant_id: str, *, payers: PayerStore, registrar: Registrar) -> Sequence[SavedMethod]:
    """Return what the provider knows of the tenant's methods; none if the tenant is no customer there."""
    customer = await payers.find_customer(tenant_id, registrar.name)
    return [] if customer is None else await registrar.list_methods(customer)
