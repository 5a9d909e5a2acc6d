"""What a failed payment means for the next one. Owns which declines are final.

Sources: Stripe's page "Smart Retries", which names the hard declines that Stripe itself does not retry until there is a
new payment method; and "Decline codes" (https://docs.stripe.com/declines/codes), from which the codes are added whose
next step is another card. Bank debits: "Failure codes" of ACH, SEPA and Bacs payments, where account or mandate are
gone. Trying those again collects nothing and makes issuers suspicious. Codes unknown here are soft: the schedule ends
anyway.
"""

from __future__ import annotations

import re
from enum import StrEnum

from payments.domain.payment import AUTHENTICATION_ABANDONED, AUTHENTICATION_REQUIRED, NO_PAYMENT_METHOD

# The issuer's own code stands in brackets behind the provider's sentence (`payments.adapters.stripe_errors`).
_IN_BRACKETS = re.compile(r"\(([a-z0-9_]{1,64})\)\s*$")
HARD_DECLINES = frozenset(
    {
        # Smart Retries
        "highest_risk_level",
        "incorrect_number",
        "lost_card",
        "pickup_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stolen_card",
        "transaction_not_allowed",
        # Decline codes
        "card_not_supported",
        "currency_not_supported",
        "do_not_try_again",
        "expired_card",
        "fraudulent",
        "invalid_account",
        "invalid_number",
        "merchant_blacklist",
        "restricted_card",
        "stop_payment_order",
        # Bank debits
        "account_closed",
        "bank_account_closed",
        "bank_account_restricted",
        "debit_not_authorized",
        "invalid_account_number",
        "no_account",
    }
)
AUTHENTICATION = frozenset({AUTHENTICATION_REQUIRED, AUTHENTICATION_ABANDONED})


class Lane(StrEnum):
    """How a failed payment goes on."""

    # Tried again by the schedule.
    SOFT = "soft"
    # Not tried again until the tenant has saved another method.
    HARD = "hard"
    # The payer did not authenticate: no decline, and no retry is used up by it.
    AUTHENTICATION = "authentication"
    # There is nothing to charge.
    NO_METHOD = "no_method"


def decline_code(code: str | None, reason: str | None) -> str:
    """Return the most exact code that is known of a failure: the issuer's, else the provider's."""
    found = _IN_BRACKETS.search(reason or "")
    return found[1] if found else code or ""


def lane_of(code: str | None, reason: str | None) -> Lane:
    """Return the lane of a failed payment."""
    exact = decline_code(code, reason)
    if exact == NO_PAYMENT_METHOD:
        return Lane.NO_METHOD
    if exact in AUTHENTICATION or code in AUTHENTICATION:
        return Lane.AUTHENTICATION
    return Lane.HARD if exact in HARD_DECLINES else Lane.SOFT
