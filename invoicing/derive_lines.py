"""Derives a stored invoice's items again, with the functions that invoices are made with and any reader of usage."""

from __future__ import annotations

from core.errors import BrokenInvariantError
from core.meters import Meter
from invoicing.domain.explanation import Derivation
from invoicing.domain.stored_invoice import StoredInvoice
from invoicing.ports import Contract, UsageReader
from invoicing.propose_lines import propose_lines, read_contract
from rating.domain.term import Term


async def derive_lines(
    invoice: StoredInvoice, contract: Contract | None, meters: dict[str, Meter], usage: UsageReader
) -> Derivation:
    """Return every item that the subscription owes for the invoice's period; a reason where that cannot be said."""
    if contract is None:
        return Derivation({}, f"there is no subscription {invoice.subscription_id} in the books any more")
    window = Term(contract.started_at, contract.ended_at).within(invoice.period)
    if window is None:
        return Derivation({})
    try:
        plan = read_contract(contract, meters)
        evidence = await usage.usage(invoice.tenant_id, window, meters=meters, month=invoice.period)
        proposal = propose_lines(contract, plan, invoice.period, evidence)
    except BrokenInvariantError as broken:
        return Derivation({}, str(broken))
    return Derivation({line.item_key: line for line in proposal.lines})
