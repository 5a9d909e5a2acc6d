"""Takes a saved payment method away: at the provider first, then here."""

from __future__ import annotations

from core.errors import ConflictError, NotFoundError
from payments.begin_method_setup import Registrar
from payments.ports import PayerStore, PaymentMethod


class DefaultMethodError(ConflictError):
    """The tenant pays by this method and has others: make another one the default first."""

    code = "default_method"


async def remove_payment_method(
    tenant_id: str, method: str, *, default: PaymentMethod | None, store: PayerStore, registrar: Registrar
) -> None:
    """Detach a method of the tenant's; the last one may go, though nothing can be charged then.

    `default` is what the tenant pays by at this provider. Raises `NotFoundError` for a method that is not the tenant's,
    `DefaultMethodError`, and `InvalidInputError` or `UnavailableError` as the provider does.
    """
    customer = await store.find_customer(tenant_id, registrar.name)
    saved = [] if customer is None else [one.reference for one in await registrar.list_methods(customer)]
    is_default = default is not None and default.method_reference == method
    if method not in saved and not is_default:
        raise NotFoundError(f"{tenant_id} has no method {method[:80]!r} at {registrar.name}")
    if is_default and set(saved) - {method}:
        raise DefaultMethodError
    if method in saved:
        await registrar.detach_method(method)
    if is_default:
        await store.forget_method(tenant_id, registrar.name, method)
