"""Refunds (API reference, "Refunds"). Owns that a charge is never refunded beyond its amount."""

from __future__ import annotations

from tests.standins.stripe_account import Account, Cause, now
from tests.standins.stripe_errors import invalid, missing, refused
from tests.standins.stripe_params import (
    PAGING,
    Params,
    check_known,
    created_matches,
    merge_metadata,
    page,
    read_integer,
)


def create_refund(account: Account, params: Params, cause: Cause) -> Params:
    """Refund a charge, named by itself or by its PaymentIntent, in full or in part."""
    check_known(params, {"payment_intent", "charge", "amount", "reason", "metadata"})
    if ("payment_intent" in params) == ("charge" in params):
        raise invalid("One of the following params should be provided for this request: payment_intent or charge.")
    if params.get("reason") not in (None, "duplicate", "fraudulent", "requested_by_customer"):
        raise invalid("Invalid reason", param="reason")
    metadata = merge_metadata({}, params)
    asked = read_integer(params["amount"], "amount") if "amount" in params else None
    if asked is not None and asked < 1:
        raise invalid("Invalid positive integer", param="amount", code="parameter_invalid_integer")
    charge = _find_charge(account, params)
    if charge["disputed"]:
        # Page "Error codes": charge_disputed.
        message = f"Charge {charge['id']} has been charged back; cannot issue a refund."
        raise refused(message, code="charge_disputed")
    left = charge["amount"] - charge["amount_refunded"]
    if left == 0:
        # Page "Error codes": charge_already_refunded.
        raise refused(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    amount = left if asked is None else asked
    if amount > left:
        raise refused(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount")
    refund: Params = {
        "id": account.new_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": now(),
        "currency": charge["currency"],
        "metadata": metadata,
        "payment_intent": charge["payment_intent"],
        "reason": params.get("reason"),
        # Page "Testing", refunds: some are pending at first.
        "status": "pending" if account.cards[charge["payment_method"]].refund == "pending" else "succeeded",
        "failure_reason": None,
    }
    account.refunds[refund["id"]] = refund
    previous = {"amount_refunded": charge["amount_refunded"]}
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    assert charge["amount_refunded"] <= charge["amount"], "a charge is never refunded beyond its amount"
    account.record("refund.created", refund, cause)
    account.record("charge.refunded", charge, cause, previous)
    return refund


def move_refund(account: Account, identity: str, cause: Cause) -> Params:
    """Act as the payer's bank, later: a pending refund succeeds, one that will fail does (page "Testing", refunds).

    Page "Refund and cancel payments", failed refunds: the money returns to the balance and refund.failed tells of it.
    """
    refund = account.refunds[identity]
    charge = account.charges[refund["charge"]]
    if refund["status"] == "pending":
        refund["status"] = "succeeded"
        account.record("refund.updated", refund, cause, {"status": "pending"})
        return refund
    if account.cards[charge["payment_method"]].refund != "fails_later" or refund["status"] != "succeeded":
        raise refused(f"The refund {identity} stays {refund['status']}.")
    refund.update(status="failed", failure_reason="lost_or_stolen_card")
    charge["amount_refunded"] -= refund["amount"]
    charge["refunded"] = False
    account.record("refund.updated", refund, cause, {"status": "succeeded"})
    account.record("refund.failed", refund, cause, {"status": "succeeded"})
    return refund


def _find_charge(account: Account, params: Params) -> Params:
    if "charge" in params:
        charge = account.charges.get(params["charge"])
        if charge is None:
            raise missing("charge", params["charge"], "charge", in_path=False)
    else:
        intent = account.payment_intents.get(params["payment_intent"])
        if intent is None:
            raise missing("payment_intent", params["payment_intent"], "payment_intent", in_path=False)
        charge = account.charges.get(intent["latest_charge"] or "")
    if charge is None or charge["status"] != "succeeded":
        raise refused("This payment does not have a successful charge to refund.")
    return charge


def retrieve_refund(account: Account, params: Params, identity: str) -> Params:
    """Retrieve a refund."""
    check_known(params, ())
    if identity not in account.refunds:
        raise missing("refund", identity, "refund", in_path=True)
    return account.refunds[identity]


def list_refunds(account: Account, params: Params) -> Params:
    """List refunds, by charge, PaymentIntent and creation."""
    check_known(params, PAGING | {"created", "charge", "payment_intent"})
    chosen = [
        refund
        for refund in account.refunds.values()
        if created_matches(refund, params.get("created"))
        and params.get("charge") in (None, refund["charge"])
        and params.get("payment_intent") in (None, refund["payment_intent"])
    ]
    return page(chosen, params, "/v1/refunds")
