"""Stripe's test cards by PaymentMethod id (page "Testing"). Owns how each card behaves, never a card number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decline:
    """How an issuer says no: `code`, and `decline_code` for card_declined (page "Decline codes")."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True)
class Card:
    """A test card or bank account. `three_d_secure` is never, always, unless_set_up or set_up.

    A `delayed` method is taken at once and settles later, `dispute` is chargeback or inquiry, `refund` now, pending
    (succeeds later) or fails_later (page "Testing": disputes, refunds, bank debits).
    """

    brand: str
    last4: str
    decline: Decline | None = None
    attachable: bool = True
    three_d_secure: str = "never"
    kind: str = "card"
    delayed: bool = False
    dispute: str | None = None
    refund: str = "now"


def _declined(decline_code: str, message: str = "Your card was declined.") -> Decline:
    return Decline("card_declined", decline_code, message)


AUTHENTICATION_REQUIRED = Decline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
_GENERIC = _declined("generic_decline")
_NO_FUNDS = _declined("insufficient_funds", "Your card has insufficient funds.")
_LOST = _declined("lost_card")
_STOLEN = _declined("stolen_card")
_VELOCITY = _declined("card_velocity_exceeded", "Your card was declined for making repeated attempts too frequently.")
_EXPIRED = Decline("expired_card", None, "Your card has expired.")
_CVC = Decline("incorrect_cvc", None, "Your card's security code is incorrect.")
_PROCESSING = Decline("processing_error", None, "An error occurred while processing your card.")

# Page "Testing", declined payments: these cannot be attached to a customer; chargeCustomerFail can, and then fails.
CARDS: dict[str, Card] = {
    "pm_card_visa": Card("visa", "4242"),
    "pm_card_visa_debit": Card("visa", "5556"),
    "pm_card_mastercard": Card("mastercard", "4444"),
    "pm_card_amex": Card("amex", "8431"),
    "pm_card_discover": Card("discover", "1117"),
    "pm_card_chargeDeclined": Card("visa", "0002", _GENERIC, attachable=False),
    "pm_card_visa_chargeDeclined": Card("visa", "0002", _GENERIC, attachable=False),
    "pm_card_chargeDeclinedInsufficientFunds": Card("visa", "9995", _NO_FUNDS, attachable=False),
    "pm_card_visa_chargeDeclinedInsufficientFunds": Card("visa", "9995", _NO_FUNDS, attachable=False),
    "pm_card_visa_chargeDeclinedLostCard": Card("visa", "9987", _LOST, attachable=False),
    "pm_card_visa_chargeDeclinedStolenCard": Card("visa", "9979", _STOLEN, attachable=False),
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": Card("visa", "6975", _VELOCITY, attachable=False),
    "pm_card_chargeDeclinedExpiredCard": Card("visa", "0069", _EXPIRED, attachable=False),
    "pm_card_chargeDeclinedIncorrectCvc": Card("visa", "0127", _CVC, attachable=False),
    "pm_card_chargeDeclinedProcessingError": Card("visa", "0119", _PROCESSING, attachable=False),
    "pm_card_chargeCustomerFail": Card("visa", "0341", _GENERIC),
    # Page "Testing", authentication and setup.
    "pm_card_authenticationRequired": Card("visa", "3184", three_d_secure="always"),
    "pm_card_authenticationRequiredOnSetup": Card("visa", "3155", three_d_secure="unless_set_up"),
    "pm_card_authenticationRequiredSetupForOffSession": Card("visa", "0446", three_d_secure="set_up"),
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": Card(
        "visa", "3178", _NO_FUNDS, three_d_secure="always"
    ),
}
# Page "Testing", disputes and refunds.
CARDS |= {
    "pm_card_createDispute": Card("visa", "0259", dispute="chargeback"),
    "pm_card_createDisputeInquiry": Card("visa", "1976", dispute="inquiry"),
    "pm_card_pendingRefund": Card("visa", "7726", refund="pending"),
    "pm_card_refundFail": Card("visa", "5126", refund="fails_later"),
}
_NOT_AUTHORIZED = Decline("debit_not_authorized", None, "The payment is not authorized by the account's owner.")
_ACCOUNT_CLOSED = Decline("account_closed", None, "The customer's bank account has been closed.")
_BANK_NO_FUNDS = Decline("insufficient_funds", None, "The bank account has insufficient funds.")


def _bank(kind: str, last4: str, decline: Decline | None = None, dispute: str | None = None) -> Card:
    brand = {"us_bank_account": "STRIPE TEST BANK", "bacs_debit": "108800", "sepa_debit": "DE"}[kind]
    return Card(brand, last4, decline, kind=kind, delayed=True, dispute=dispute)


# Pages "ACH Direct Debit", "Bacs Direct Debit", test accounts: in process for days in live mode. SEPA's test accounts
# are told by IBAN in the payer's form; the two names here are the stand-in's own.
CARDS |= {
    "pm_usBankAccount_success": _bank("us_bank_account", "6789"),
    "pm_usBankAccount_insufficientFunds": _bank("us_bank_account", "2227", _BANK_NO_FUNDS),
    "pm_usBankAccount_accountClosed": _bank("us_bank_account", "1113", _ACCOUNT_CLOSED),
    "pm_usBankAccount_debitNotAuthorized": _bank("us_bank_account", "3335", _NOT_AUTHORIZED),
    "pm_usBankAccount_dispute": _bank("us_bank_account", "5559", dispute="chargeback"),
    "pm_bacsDebit_successDelayed": _bank("bacs_debit", "2345"),
    "pm_bacsDebit_debitNotAuthorizedDelayed": _bank("bacs_debit", "3335", _NOT_AUTHORIZED),
    "pm_sepaDebit_success": _bank("sepa_debit", "3000"),
    "pm_sepaDebit_insufficientFunds": _bank("sepa_debit", "3202", _BANK_NO_FUNDS),
}


def needs_authentication(card: Card, *, set_up: bool, off_session: bool) -> bool:
    """Tell whether a payment needs 3-D Secure (page "Testing", authentication and setup)."""
    if card.three_d_secure == "always":
        return True
    if card.three_d_secure == "unless_set_up":
        return not (set_up and off_session)
    if card.three_d_secure == "set_up":
        return not off_session
    return False
