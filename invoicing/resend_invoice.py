"""Has an issued document sent once more, to the buyer or to an address that somebody names: a mail of its own.

The same key is the same wish, however often it is asked for; what was sent before is not touched.
"""

from __future__ import annotations

import re

from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from core.ids import derive_id
from invoicing.document_ports import Resend, Resends

# As addresses of tenants are read: what a mail server would refuse anyway is its to refuse.
_ADDRESS = re.compile(r"[^@\s,;:<>\"()\[\]\\]+@[^@\s,;:<>\"()\[\]\\]+")
_ADDRESS_MAX = 254
_VOID = "void"


async def resend_invoice(reference: str, *, to: str | None, key: str, resends: Resends, clock: Clock) -> Resend:
    """Write down that a document, by its number or id, is to be sent `to` an address, else to the one it shows.

    Raises `NotFoundError`; `InvalidInputError`: `void_invoice`, `no_address`, `invalid_address`; `ConflictError` where
    the key was used for another address.
    """
    stored = await resends.find(reference)
    if stored is None:
        raise NotFoundError(f"no issued invoice {reference[:80]!r}")
    if stored.status == _VOID:
        raise InvalidInputError([Fault("void_invoice", f"{stored.number} was voided and asks for nothing")])
    address = str(stored.snapshot["bill_to"].get("email") or "") if to is None else to
    if not address:
        raise InvalidInputError([Fault("no_address", f"{stored.number} shows no address: name one", "to")])
    if len(address) > _ADDRESS_MAX or not address.isprintable() or not _ADDRESS.fullmatch(address):
        raise InvalidInputError([Fault("invalid_address", f"expected name@domain, got {address[:80]!r}", "to")])
    resend_id = derive_id("resend", stored.invoice_id, key)
    resend = await resends.add_resend(resend_id, stored.invoice_id, address, clock.now())
    if resend.address != address:
        raise ConflictError(f"this key was used to send {stored.number} to another address")
    return resend
