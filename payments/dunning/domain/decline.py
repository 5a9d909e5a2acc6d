"""What a failed payment means for the next one. Owns which declines are final.

Every code is from a page of its provider, as stored publicly (the dates are those of the copies that were read):

* Stripe, "Automate payment retries", section "Hard decline codes" (docs.stripe.com/billing/revenue-recovery/
  smart-retries, 2026-09-18): nine codes after which Stripe itself charges only a new payment method. Eight are here,
  the ninth, `authentication_required`, is a lane of its own.
* Stripe, "Stripe decline codes" (docs.stripe.com/declines/codes, 2026-04-15): all codes of cards and other methods.
  Hard are those whose next step is another card, other data of the card or another way of paying, those of suspected
  fraud and of the seller's block list, and those of which the page says that retries won't succeed.
  `stop_payment_order` and the deprecated `do_not_try_again` are hard by what they say, though their next step is to ask
  the issuer.
* Stripe, "SEPA Direct Debit payments", failure codes (docs.stripe.com/payments/sepa-debit, 2026-05-03): hard where
  other details or a new mandate are needed, or the payer has taken an earlier debit back.
* Stripe's API reference as of the library that is installed: `us_bank_account.status_details.blocked.reason` (ACH), the
  reasons for which a Bacs mandate is revoked, and the error codes of methods and mandates that are no more.
* PayPal, Orders v2 errors (developer.paypal.com/api/rest/reference/orders/v2/errors, copy of 2026): nothing is saved
  there and the payer chooses anew each time, so that a declined card behind the account (`instrument_declined`,
  `redirect_payer_for_alternate_funding`) is soft. Hard is what keeps this payer from paying this seller at all.

Trying hard declines again collects nothing and makes issuers suspicious. A code that no page names is soft, but is
tried `UNKNOWN_TRIES_MAX` times at most, whatever the schedule says.
"""

from __future__ import annotations

import re
from enum import StrEnum

from payments.domain.payment import AUTHENTICATION_ABANDONED, AUTHENTICATION_REQUIRED, NO_PAYMENT_METHOD

# The issuer's own code stands in brackets behind the provider's sentence (`payments.adapters.stripe_errors`).
_IN_BRACKETS = re.compile(r"\(([a-z0-9_]{1,64})\)\s*$")
# Charges of one invoice, the first one included: what the shipped schedule makes of a soft decline.
UNKNOWN_TRIES_MAX = 4
HARD_DECLINES = frozenset(
    {
        # Stripe, "Hard decline codes"
        "highest_risk_level",
        "incorrect_number",
        "lost_card",
        "pickup_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stolen_card",
        "transaction_not_allowed",
        # Stripe, "Card decline codes"
        "card_not_supported",
        "currency_not_supported",
        "do_not_try_again",
        "expired_card",
        "fraudulent",
        "incorrect_address",
        "incorrect_cvc",
        "incorrect_zip",
        "invalid_account",
        "invalid_cvc",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "invalid_number",
        "merchant_blacklist",
        "new_account_information_available",
        "restricted_card",
        "stop_payment_order",
        "testmode_decline",
        # … which need the card in its holder's hand
        "incorrect_pin",
        "invalid_pin",
        "mobile_device_authentication_required",
        "offline_pin_required",
        "online_or_offline_pin_required",
        "pin_try_exceeded",
        # Stripe, "Local payment method decline codes"
        "card_already_activated",
        "compliance_violation",
        "expired_payment_information",
        "invalid_authorization",
        "invalid_billing_agreement",
        "invalid_payment_information",
        "invalid_track_data",
        "lost_or_stolen_card",
        "partner_action_not_supported",
        "recurring_not_supported_by_bank",
        # SEPA
        "account_closed",
        "authorization_revoked",
        "bank_account_restricted",
        "branch_does_not_exist",
        "debit_authorization_not_match",
        "debit_disputed",
        "debit_not_authorized",
        "incorrect_account_holder_name",
        "invalid_account_number",
        "recipient_deceased",
        # ACH, Bacs
        "bank_account_closed",
        "bank_account_frozen",
        "bank_account_invalid_details",
        "bank_account_unusable",
        "bank_ownership_changed",
        "tokenized_account_number_deactivated",
        # Stripe's error codes of methods and mandates that are no more
        "bank_account_declined",
        "expired_payment_method",
        "incorrect_postal_code",
        "india_recurring_payment_mandate_canceled",
        "no_account",
        "payment_intent_mandate_invalid",
        "payment_method_bank_account_blocked",
        # PayPal
        "payer_account_locked_or_closed",
        "payer_account_restricted",
        "payer_cannot_pay",
    }
)
SOFT_DECLINES = frozenset(
    {
        # Stripe, "Card decline codes"
        "approve_with_id",
        "call_issuer",
        "card_velocity_exceeded",
        "do_not_honor",
        "duplicate_transaction",
        "generic_decline",
        "insufficient_funds",
        "invalid_amount",
        "issuer_not_available",
        "no_action_taken",
        "not_permitted",
        "processing_error",
        "reenter_transaction",
        "security_violation",
        "service_not_allowed",
        "try_again_later",
        "withdrawal_count_limit_exceeded",
        # … without the issuer's code
        "card_declined",
        # Stripe, "Local payment method decline codes"
        "invalid_business_account",
        "invalid_customer_account",
        "partner_generic_decline",
        "partner_high_risk_customer",
        "partner_payment_not_found",
        "payment_disputed",
        "payment_limit_exceeded",
        # Bank debits
        "could_not_process",
        "generic_could_not_process",
        "refer_to_customer",
        # PayPal
        "capture_declined",
        "capture_failed",
        "instrument_declined",
        "redirect_payer_for_alternate_funding",
        "transaction_refused",
        # Ours: nothing was charged, or nobody knows why not
        "provider_error",
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


def is_unknown(code: str | None, reason: str | None) -> bool:
    """Tell whether a failure has a code that nobody has written down as soft."""
    return lane_of(code, reason) is Lane.SOFT and decline_code(code, reason) not in SOFT_DECLINES
