"""Disputes (API reference, "Disputes"; page "How disputes work"). Owns what the payer's bank does with a charge."""

from __future__ import annotations

from tests.standins.stripe_account import Account, Cause, now
from tests.standins.stripe_errors import refused
from tests.standins.stripe_params import Params

# Page "Respond to disputes": 7 to 21 days, by card network.
_EVIDENCE_SECONDS = 9 * 86_400
FINAL = ("won", "lost", "warning_closed")


def open_dispute(account: Account, charge: Params, kind: str, cause: Cause) -> Params:
    """Open a chargeback, which takes the money at once, or an inquiry, which only asks (page "How disputes work")."""
    dispute: Params = {
        "id": account.new_id("du"),
        "object": "dispute",
        "amount": charge["amount"],
        "charge": charge["id"],
        "created": now(),
        "currency": charge["currency"],
        "evidence_details": {"due_by": now() + _EVIDENCE_SECONDS, "has_evidence": False, "submission_count": 0},
        "is_charge_refundable": kind == "inquiry",
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": "fraudulent",
        "status": "warning_needs_response" if kind == "inquiry" else "needs_response",
    }
    account.disputes[dispute["id"]] = dispute
    account.record("charge.dispute.created", dispute, cause)
    if kind != "inquiry":
        charge["disputed"] = True
        # API reference, "Event types", charge.dispute.funds_withdrawn: the money is taken from the balance.
        account.record("charge.dispute.funds_withdrawn", dispute, cause)
    return dispute


def move_dispute(account: Account, identity: str, status: str, cause: Cause) -> Params:
    """Act as the bank: evidence is looked at, the dispute is won, lost or closed (not an API call of Stripe's)."""
    dispute = account.disputes[identity]
    if dispute["status"] in FINAL:
        raise refused(f"This dispute is {dispute['status']} already.")
    dispute["status"] = status
    if status not in FINAL:
        account.record("charge.dispute.updated", dispute, cause)
        return dispute
    account.record("charge.dispute.closed", dispute, cause)
    if status == "won":
        # Same list, charge.dispute.funds_reinstated: the money comes back when a dispute is won.
        account.charges[dispute["charge"]]["disputed"] = False
        account.record("charge.dispute.funds_reinstated", dispute, cause)
    return dispute
