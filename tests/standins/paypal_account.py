"""One PayPal account in memory: orders, captures, refunds and the events they leave behind. Owns when money moves.

Sources, unless a line says otherwise: PayPal's OpenAPI files "Orders" 2.13 and "Payments" 2.5, pages "Webhook event
names" and "Currency codes".
"""

from __future__ import annotations

import copy
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.standins.paypal_errors import malformed, missing, unprocessable

Params = dict[str, Any]
NO_DECIMALS = ("HUF", "JPY", "TWD")
CURRENCIES = (
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR", "NOK",
    "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD",
)  # fmt: skip
# "3 hours (default setting …) from the time the order is created, to redirect your payer": Orders v2, order `links`.
APPROVAL_SECONDS = 3 * 3600
INSTRUMENTS = ("good", "declined", "pending")


@dataclass
class Account:
    """All objects of the account. `run_tag` keeps ids of two runs apart."""

    run_tag: str
    base_url: str
    orders: dict[str, Params] = field(default_factory=dict)
    captures: dict[str, Params] = field(default_factory=dict)
    refunds: dict[str, Params] = field(default_factory=dict)
    events: dict[str, Params] = field(default_factory=dict)
    instruments: dict[str, str] = field(default_factory=dict)
    """What the payer pays an approved order with."""
    order_of: dict[str, str] = field(default_factory=dict)
    """The order of each capture."""
    refunds_stay_pending: bool = False
    ahead_seconds: float = 0
    """How far the account's clock is ahead of the machine's."""
    fresh_events: list[Params] = field(default_factory=list)
    _counters: Counter[str] = field(default_factory=Counter)

    def new_id(self, kind: str) -> str:
        """Return the next id: 17 capital letters and digits, as PayPal's are."""
        self._counters[kind] += 1
        return f"{self.run_tag}{kind}{self._counters[kind]:0{17 - len(self.run_tag) - len(kind)}d}"

    def now(self) -> float:
        """Return the account's time in Unix seconds."""
        return time.time() + self.ahead_seconds

    def record(self, kind: str, resource_type: str, resource: Params, summary: str) -> None:
        """Write an event; its resource is what it looks like now."""
        event: Params = {
            "id": f"WH-{self.new_id('E')}",
            "event_version": "1.0",
            "create_time": instant(self.now(), milliseconds=True),
            "resource_type": resource_type,
            "resource_version": "2.0",
            "event_type": kind,
            "summary": summary,
            "resource": copy.deepcopy(resource),
            "links": [],
        }
        self.events[event["id"]] = event
        self.fresh_events.append(event)

    def take_fresh_events(self) -> list[Params]:
        """Return the events since the last call, oldest first."""
        taken, self.fresh_events = self.fresh_events, []
        return taken

    def create_order(self, body: Params) -> Params:
        """`POST /v2/checkout/orders`."""
        if body.get("intent") != "CAPTURE":
            raise malformed("INVALID_PARAMETER_VALUE", "The stand-in knows intent CAPTURE only", "/intent")
        units = body.get("purchase_units")
        if not isinstance(units, list) or len(units) != 1:
            raise malformed("INVALID_ARRAY_MIN_ITEMS", "The stand-in knows one purchase unit", "/purchase_units")
        amount = read_amount(units[0].get("amount"), "/purchase_units/@reference_id=='default'/amount")
        for name, longest in (("custom_id", 127), ("invoice_id", 127), ("description", 127)):
            value = units[0].get(name)
            if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= longest):
                raise malformed("INVALID_STRING_LENGTH", "Either too short or too long", f"/purchase_units/0/{name}")
        source = body.get("payment_source", {})
        # Without a payment source an order is CREATED and links `approve`; with one it needs the payer's action and
        # links `payer-action`.
        with_source = "paypal" in source
        context = source.get("paypal", {}).get("experience_context", {})
        if with_source and not str(context.get("return_url", "")).startswith("http"):
            raise malformed("MISSING_REQUIRED_PARAMETER", "return_url", "/payment_source/paypal/experience_context")
        order_id = self.new_id("O")
        unit: Params = {"reference_id": "default", "amount": amount}
        unit |= {name: units[0][name] for name in ("custom_id", "invoice_id", "description") if name in units[0]}
        order: Params = {
            "id": order_id,
            "intent": "CAPTURE",
            "status": "PAYER_ACTION_REQUIRED" if with_source else "CREATED",
            "purchase_units": [unit],
            "create_time": instant(self.now()),
            "links": [
                {"href": f"{self.base_url}/v2/checkout/orders/{order_id}", "rel": "self", "method": "GET"},
                {
                    "href": f"{self.base_url}/checkoutnow?token={order_id}",
                    "rel": "payer-action" if with_source else "approve",
                    "method": "GET",
                },
            ],
        }
        if with_source:
            order["payment_source"] = {"paypal": {}}
        self.orders[order_id] = order
        return order

    def show_order(self, order_id: str) -> Params:
        """`GET /v2/checkout/orders/{id}`."""
        if order_id not in self.orders:
            raise missing()
        return self.orders[order_id]

    def approve(self, order_id: str, instrument: str) -> None:
        """Act as the payer on PayPal's page, paying with this instrument."""
        order = self.show_order(order_id)
        if order["status"] not in ("CREATED", "PAYER_ACTION_REQUIRED") or self._is_over(order):
            raise unprocessable("ORDER_EXPIRED", "The page tells the payer that the order is over")
        order["status"] = "APPROVED"
        self.instruments[order_id] = instrument
        self.record("CHECKOUT.ORDER.APPROVED", "checkout-order", order, "An order has been approved by buyer")

    def _is_over(self, order: Params) -> bool:
        created = datetime.fromisoformat(order["create_time"]).timestamp()
        return self.now() - created > APPROVAL_SECONDS and order["status"] != "COMPLETED"

    def capture_order(self, order_id: str) -> Params:
        """`POST /v2/checkout/orders/{id}/capture`; the only place where money is taken."""
        order = self.show_order(order_id)
        unit = order["purchase_units"][0]
        if order["status"] == "COMPLETED" or unit.get("payments", {}).get("captures"):
            text = "Order already captured. If 'intent=CAPTURE' only one capture per order is allowed."
            raise unprocessable("ORDER_ALREADY_CAPTURED", text)
        if self._is_over(order):
            raise unprocessable("ORDER_EXPIRED", "Order is expired and hence cannot be authorized.")
        if order["status"] != "APPROVED":
            raise unprocessable("ORDER_NOT_APPROVED", "Payer has not yet approved the Order for payment.")
        invoice_id = unit.get("invoice_id")
        if invoice_id is not None and any(done.get("invoice_id") == invoice_id for done in self.captures.values()):
            # What an account does by default ("Block accidental payments").
            raise unprocessable("DUPLICATE_INVOICE_ID", "Duplicate Invoice ID detected.")
        instrument = self.instruments[order_id]
        if instrument == "declined":
            # Page "Handle funding failures": the payer is sent back to choose another source.
            order["status"] = "PAYER_ACTION_REQUIRED"
            raise unprocessable(
                "INSTRUMENT_DECLINED", "The instrument presented was declined by the processor or bank."
            )
        capture_id = self.new_id("C")
        capture: Params = {
            "id": capture_id,
            "status": "PENDING" if instrument == "pending" else "COMPLETED",
            "amount": dict(unit["amount"]),
            "final_capture": True,
            "create_time": instant(self.now()),
            "update_time": instant(self.now()),
            "links": [
                {"href": f"{self.base_url}/v2/payments/captures/{capture_id}", "rel": "self", "method": "GET"},
                {"href": f"{self.base_url}/v2/checkout/orders/{order_id}", "rel": "up", "method": "GET"},
            ],
        }
        capture |= {name: unit[name] for name in ("custom_id", "invoice_id") if name in unit}
        if instrument == "pending":
            capture["status_details"] = {"reason": "PENDING_REVIEW"}
        self.captures[capture_id] = capture
        self.order_of[capture_id] = order_id
        unit["payments"] = {"captures": [capture]}
        order["status"] = "COMPLETED"
        self._record_capture(capture)
        return order

    def _record_capture(self, capture: Params) -> None:
        resource = capture | {"supplementary_data": {"related_ids": {"order_id": self.order_of[capture["id"]]}}}
        self.record(f"PAYMENT.CAPTURE.{capture['status']}", "capture", resource, "Payment of a capture")

    def resolve_pending(self, capture_id: str, *, success: bool) -> None:
        """Let the review of a pending capture end."""
        capture = self.captures[capture_id]
        assert capture["status"] == "PENDING", "only a pending capture can be resolved"
        del capture["status_details"]
        capture["status"] = "COMPLETED" if success else "DECLINED"
        resource = capture | {"supplementary_data": {"related_ids": {"order_id": self.order_of[capture_id]}}}
        kind = "PAYMENT.CAPTURE.COMPLETED" if success else "PAYMENT.CAPTURE.DENIED"
        self.record(kind, "capture", resource, "The review has ended")

    def refund_capture(self, capture_id: str, body: Params) -> Params:
        """`POST /v2/payments/captures/{id}/refund`; without an amount all that is left."""
        capture = self.captures.get(capture_id)
        if capture is None:
            raise missing()
        if capture["status"] == "PENDING":
            raise unprocessable("PENDING_CAPTURE", "Cannot initiate a refund as the capture is pending.")
        left = Decimal(capture["amount"]["value"]) - self.refunded(capture_id)
        if not left:
            raise unprocessable("CAPTURE_FULLY_REFUNDED", "The capture has already been fully refunded")
        currency = capture["amount"]["currency_code"]
        if "amount" in body:
            amount = read_amount(body["amount"], "/amount")
            if amount["currency_code"] != currency:
                text = "Refund must be in the same currency as the capture"
                raise unprocessable("REFUND_CAPTURE_CURRENCY_MISMATCH", text)
        else:
            amount = {"currency_code": currency, "value": f"{left:f}"}
        if Decimal(amount["value"]) > left:
            text = "The refund amount must be less than or equal to the capture amount that has not yet been refunded."
            raise unprocessable("REFUND_AMOUNT_EXCEEDED", text)
        refund_id = self.new_id("R")
        refund: Params = {
            "id": refund_id,
            "status": "PENDING" if self.refunds_stay_pending else "COMPLETED",
            "amount": amount,
            "create_time": instant(self.now()),
            "links": [
                {"href": f"{self.base_url}/v2/payments/refunds/{refund_id}", "rel": "self", "method": "GET"},
                {"href": f"{self.base_url}/v2/payments/captures/{capture_id}", "rel": "up", "method": "GET"},
            ],
        }
        # A refund without ids of its own bears those of its capture, as webhooks of refunds by hand show.
        for name in ("custom_id", "invoice_id"):
            value = body.get(name, capture.get(name))
            if value is not None:
                refund[name] = value
        self.refunds[refund_id] = refund
        unit = self.orders[self.order_of[capture_id]]["purchase_units"][0]
        unit["payments"].setdefault("refunds", []).append(refund)
        capture["status"] = "REFUNDED" if Decimal(amount["value"]) == left else "PARTIALLY_REFUNDED"
        kind = "PAYMENT.REFUND.PENDING" if self.refunds_stay_pending else "PAYMENT.CAPTURE.REFUNDED"
        self.record(kind, "refund", refund, "A refund")
        assert self.refunded(capture_id) <= Decimal(capture["amount"]["value"]), "never refunded beyond the capture"
        return refund

    def refunded(self, capture_id: str) -> Decimal:
        """Return how much of a capture went back."""
        unit = self.orders[self.order_of[capture_id]]["purchase_units"][0]
        return sum((Decimal(each["amount"]["value"]) for each in unit["payments"].get("refunds", [])), Decimal(0))

    def dispute(self, capture_id: str, *, stage: str, outcome: str | None = None) -> None:
        """Let the payer open, or PayPal end, a dispute (Disputes API 1.x, resource of CUSTOMER.DISPUTE.…)."""
        capture = self.captures[capture_id]
        resource: Params = {
            "dispute_id": f"PP-{capture_id}",
            "create_time": instant(self.now(), milliseconds=True),
            "disputed_transactions": [
                {"seller_transaction_id": capture_id, "custom": capture.get("custom_id", ""), "invoice_number": ""}
            ],
            "reason": "UNAUTHORISED",
            "status": "RESOLVED" if outcome else "OPEN",
            "dispute_amount": dict(capture["amount"]),
            "dispute_life_cycle_stage": stage,
        }
        if outcome:
            resource["dispute_outcome"] = {"outcome_code": outcome, "amount_refunded": dict(capture["amount"])}
        kind = "RESOLVED" if outcome else "CREATED"
        self.record(f"CUSTOMER.DISPUTE.{kind}", "dispute", resource, "A dispute")

    def take_back_approvals(self) -> None:
        """Void approved orders that nobody captured in time (page "Handle uncaptured payments")."""
        for order in self.orders.values():
            if order["status"] == "APPROVED" and self._is_over(order):
                order["status"] = "VOIDED"
                resource = {"order_id": order["id"], "purchase_units": order["purchase_units"]}
                text = "A payment has been reversed after approval."
                self.record("CHECKOUT.PAYMENT-APPROVAL.REVERSED", "checkout-order", resource, text)

    def ledger(self) -> list[Params]:
        """Return every capture that took money, oldest first, with what went back."""
        return [
            {
                "capture": capture["id"],
                "order": self.order_of[capture["id"]],
                "amount": capture["amount"]["value"],
                "currency": capture["amount"]["currency_code"],
                "custom_id": capture.get("custom_id"),
                "invoice_id": capture.get("invoice_id"),
                "refunded": f"{self.refunded(capture['id']):f}",
            }
            for capture in self.captures.values()
            if capture["status"] in ("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED")
        ]


def read_amount(value: Any, place: str) -> dict[str, str]:
    """Check an amount as PayPal does."""
    if not isinstance(value, dict) or not isinstance(value.get("value"), str):
        raise malformed("MISSING_REQUIRED_PARAMETER", "A required field / parameter is missing.", place)
    currency, text = value.get("currency_code"), value["value"]
    if currency not in CURRENCIES:
        raise unprocessable("INVALID_CURRENCY_CODE", "Currency code is invalid or is not currently supported.", place)
    if not re.fullmatch(r"-?\d{1,15}(\.\d+)?", text):
        raise malformed("INVALID_PARAMETER_SYNTAX", "The value of a field does not conform to the format.", place)
    if Decimal(text) <= 0:
        raise unprocessable("CANNOT_BE_ZERO_OR_NEGATIVE", "Must be greater than zero.", place)
    decimals = len(text.partition(".")[2])
    if decimals and currency in NO_DECIMALS:
        raise unprocessable("DECIMALS_NOT_SUPPORTED", "Currency does not support decimals.", place)
    if decimals > 2:
        raise unprocessable("DECIMAL_PRECISION", "only two decimal place precision is supported.", place)
    return {"currency_code": currency, "value": text}


def instant(seconds: float, *, milliseconds: bool = False) -> str:
    """Write a time as PayPal does; events have milliseconds, resources have not."""
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds" if milliseconds else "seconds").replace("+00:00", "Z")
