"""Payloads of the billing topics. Owns their JSON form: amounts and quantities are decimal strings, instants ISO 8601.

A message names its cause, so a reader that has seen it can tell (`core.ids.derive_id`). Decoding anything else raises
`InvalidInputError`, which the consumers turn into a dead letter.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from core.errors import Fault, InvalidInputError
from core.ids import derive_id


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    pass


class InvoicingRequest(_Message, frozen=True, kw_only=True):
    """Please invoice this tenant for this period; asking twice gives nothing new.

    `period` is a month of the tenant's calendar (`2026-10`) or an instant (docs/billing-periods.md), `run_id` names the
    batch run or API call that asked.
    """

    tenant_id: str
    period: str
    run_id: str
    requested_at: str


class InvoiceFinalized(_Message, frozen=True, kw_only=True):
    """A document got its number and will never change. `amount_due` is rounded to the minor unit; may be "0.00".

    `kind` is `invoice` or `credit_note`, of which nothing is due.
    """

    invoice_id: str
    number: str
    tenant_id: str
    currency: str
    amount_due: str
    period_start: str
    period_end: str
    issued_at: str
    due_at: str
    kind: str = "invoice"


class InvoiceVoided(_Message, frozen=True, kw_only=True):
    """An issued invoice counts as never billed; its number stays used. `total` is what it had asked for."""

    invoice_id: str
    number: str
    tenant_id: str
    currency: str
    total: str
    voided_at: str


class PaymentSettled(_Message, frozen=True, kw_only=True):
    """A payment intent succeeded at the provider and pays (part of) the invoice."""

    payment_id: str
    invoice_id: str
    tenant_id: str
    provider: str
    provider_reference: str
    currency: str
    amount: str
    settled_at: str


class PaymentFailed(_Message, frozen=True, kw_only=True):
    """A payment attempt ended without money. `code` is the provider's reason (`card_declined`, ...)."""

    payment_id: str
    invoice_id: str
    tenant_id: str
    provider: str
    code: str
    reason: str
    currency: str
    amount: str
    failed_at: str


# The reason of a refund that is none: the payer's bank took a transfer back, so its invoice is owed again.
RETURNED_TRANSFER = "returned_transfer"


class PaymentRefunded(_Message, frozen=True, kw_only=True):
    """Money of a settled payment went back to the payer; may be a part, and several add up to at most the payment.

    `status` is "failed" when a refund announced as "succeeded" came back from the payer's bank: the money is ours
    again, and what was booked for `refund_id` is to be taken back.
    """

    refund_id: str
    payment_id: str
    invoice_id: str
    tenant_id: str
    provider: str
    provider_reference: str
    currency: str
    amount: str
    reason: str
    at: str
    status: Literal["succeeded", "failed"] = "succeeded"


class PaymentDisputed(_Message, frozen=True, kw_only=True):
    """The payer's bank disputes a settled payment: `amount` is held ("opened"), ours again ("won") or gone ("lost").

    "opened" always comes before "won" or "lost" of the same `dispute_id`. `evidence_due_at` is "" where none is asked.
    """

    dispute_id: str
    payment_id: str
    invoice_id: str
    tenant_id: str
    provider: str
    provider_reference: str
    currency: str
    amount: str
    status: Literal["opened", "won", "lost"]
    reason: str
    evidence_due_at: str
    at: str


class AccountStanding(_Message, frozen=True, kw_only=True):
    """An account was suspended because an invoice stayed unpaid, or restored because nothing keeps it so any more.

    `event` is `account.suspended` or `account.restored`, `stage` how the account stands now (docs/dunning.md).
    """

    event: Literal["account.suspended", "account.restored"]
    tenant_id: str
    stage: str
    reason: str
    at: str


class QuotaCrossed(_Message, frozen=True, kw_only=True):
    """Usage of a meter reached a threshold within a period.

    `used` and `limit` are decimal strings in the meter's unit, `period` is a live period's name (`core.calendar`).
    `kind` says what the threshold is: a percentage of `limit`, or `units` of the meter; `value` is the threshold itself
    as a decimal string. `percent` is that of a whole percentage, else 0; `limit` is "" where there is none.
    `arming` counts how often a correction took the total below this threshold before it was reached this time.
    """

    tenant_id: str
    meter: str
    unit: str
    period: str
    percent: int
    used: str
    limit: str
    crossed_at: str
    kind: Literal["percent", "units"] = "percent"
    value: str = ""
    arming: int = 0

    @property
    def threshold(self) -> str:
        """The threshold as a decimal string; messages from before there were kinds have only a percentage."""
        return self.value or str(self.percent)

    @property
    def alert_id(self) -> str:
        """The same crossing has the same id, however often it is reported: exactly one alert comes of it.

        A limit that was changed is another cause for a percentage, but not for units.
        """
        cause = [self.tenant_id, self.meter, self.period, self.threshold]
        cause += [self.limit] if self.kind == "percent" else ["units", ""]
        return derive_id("alert", *cause, *([str(self.arming)] if self.arming else []))


class RunningCost(_Message, frozen=True, kw_only=True):
    """What a tenant's usage of the open period costs so far: absolute, so the newest (highest `version`) wins.

    `period` is the billing period's name in the tenant's calendar, `holding` the plan version (`lite@3`) of the charge.
    """

    tenant_id: str
    plan_id: str
    charge_id: str
    meter: str
    period: str
    quantity: str
    amount: str
    currency: str
    version: int
    rated_at: str
    subscription_id: str = ""
    holding: str = ""


M = TypeVar("M", bound=_Message)


def encode_message(message: _Message) -> bytes:
    """Return the message's JSON bytes."""
    return msgspec.json.encode(message)


def decode_message(raw: bytes | None, kind: type[M]) -> M:
    """Read a message of a known kind; raises `InvalidInputError` (`tombstone`, `malformed_message`)."""
    if raw is None:
        raise InvalidInputError([Fault("tombstone", "the record has no value")])
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInputError([Fault("malformed_message", f"not a {kind.__name__}: {error}")]) from None
