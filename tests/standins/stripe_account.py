"""One Stripe account in memory. Owns ids, the objects by id, and the events that changes leave behind."""

from __future__ import annotations

import copy
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.standins.stripe_cards import CARDS, Card
from tests.standins.stripe_errors import invalid, missing
from tests.standins.stripe_params import PAGING, Params, check_known, created_matches, page

API_VERSION = "2026-10-28.endive"


@dataclass(frozen=True)
class Cause:
    """The request behind a change; events name it (API reference, Event `request`)."""

    request_id: str | None
    idempotency_key: str | None


@dataclass
class Account:
    """All objects of the account. `run_tag` keeps ids of two runs of the stand-in apart, counters within one run."""

    run_tag: str
    customers: dict[str, Params] = field(default_factory=dict)
    payment_methods: dict[str, Params] = field(default_factory=dict)
    payment_intents: dict[str, Params] = field(default_factory=dict)
    charges: dict[str, Params] = field(default_factory=dict)
    refunds: dict[str, Params] = field(default_factory=dict)
    disputes: dict[str, Params] = field(default_factory=dict)
    setup_intents: dict[str, Params] = field(default_factory=dict)
    products: dict[str, Params] = field(default_factory=dict)
    prices: dict[str, Params] = field(default_factory=dict)
    events: dict[str, Params] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)
    """The card behind each PaymentMethod id."""
    set_up: set[str] = field(default_factory=set)
    """PaymentMethods the customer has authenticated for later off-session payments."""
    charge_keys: dict[str, str | None] = field(default_factory=dict)
    """The idempotency key of the request that made each charge."""
    undelivered: set[str] = field(default_factory=set)
    """Events some endpoint has not yet confirmed."""
    fresh_events: list[Params] = field(default_factory=list)
    """Events since the webhook sender last took them."""
    _counters: Counter[str] = field(default_factory=Counter)

    def new_id(self, prefix: str) -> str:
        """Return the next id with this prefix: the run's tag and a counter."""
        self._counters[prefix] += 1
        return f"{prefix}_{self.run_tag}{self._counters[prefix]:012d}"

    def record(self, kind: str, subject: Params, cause: Cause, previous: Params | None = None) -> Params:
        """Write the event for a change; its object is what the subject looks like now (API reference, Event)."""
        data: Params = {"object": copy.deepcopy(subject)}
        if previous is not None:
            data["previous_attributes"] = previous
        event: Params = {
            "id": self.new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": now(),
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": {"id": cause.request_id, "idempotency_key": cause.idempotency_key},
            "type": kind,
        }
        self.events[event["id"]] = event
        self.fresh_events.append(event)
        return event

    def take_fresh_events(self) -> list[Params]:
        """Return the events since the last call, oldest first."""
        taken, self.fresh_events = self.fresh_events, []
        return taken

    def find(self, identity: str) -> Params | None:
        """Return the object with this id, whatever its kind."""
        stores = {
            "cus": self.customers, "pm": self.payment_methods, "pi": self.payment_intents,
            "ch": self.charges, "re": self.refunds, "evt": self.events, "du": self.disputes, "price": self.prices,
        }  # fmt: skip
        return stores.get(identity.split("_")[0], {}).get(identity)

    def customer(self, identity: str, *, in_path: bool = False) -> Params:
        """Return a customer that exists and was not deleted."""
        customer = self.customers.get(identity)
        if customer is None or (customer.get("deleted") and not in_path):
            raise missing("customer", identity, "id" if in_path else "customer", in_path=in_path)
        return customer

    def payment_method(self, identity: str, *, in_path: bool = False) -> Params:
        """Return a PaymentMethod; a test card's name makes a new one (page "Testing")."""
        if identity in CARDS:
            return self.add_payment_method(CARDS[identity])
        found = self.payment_methods.get(identity)
        if found is None:
            raise missing("PaymentMethod", identity, "payment_method", in_path=in_path)
        return found

    def add_payment_method(self, card: Card) -> Params:
        """Make a PaymentMethod for the card; only brand, last four and expiry are kept, as Stripe shows them."""
        details: Params = {"last4": card.last4, "bank_name": card.brand}
        if card.kind == "card":
            details = {
                "brand": card.brand, "country": "US", "exp_month": 12, "exp_year": 2034, "funding": "credit",
                "last4": card.last4, "three_d_secure_usage": {"supported": True},
            }  # fmt: skip
        method: Params = {
            "id": self.new_id("pm"),
            "object": "payment_method",
            "billing_details": {"address": None, "email": None, "name": None, "phone": None},
            card.kind: details,
            "created": now(),
            "customer": None,
            "livemode": False,
            "metadata": {},
            "type": card.kind,
        }
        self.payment_methods[method["id"]] = method
        self.cards[method["id"]] = card
        if card.three_d_secure == "set_up":
            self.set_up.add(method["id"])
        return method

    def list_events(self, params: Params) -> Params:
        """List events (API reference, "List all events")."""
        check_known(params, PAGING | {"created", "type", "types", "delivery_success"})
        types = [params["type"]] if "type" in params else params.get("types")
        if not isinstance(types, list | None):
            raise invalid("Invalid array", param="types")
        delivered = params.get("delivery_success")
        if delivered not in (None, "true", "false"):
            raise invalid(f"Invalid boolean: {delivered}", param="delivery_success")
        chosen = [
            event
            for event in self.events.values()
            if created_matches(event, params.get("created"))
            and (types is None or event["type"] in types)
            and (delivered is None or (event["id"] in self.undelivered) == (delivered == "false"))
        ]
        return page(chosen, params, "/v1/events")

    def retrieve_event(self, params: Params, identity: str) -> Params:
        """Retrieve an event (API reference, "Retrieve an event")."""
        check_known(params, ())
        if identity not in self.events:
            raise missing("event", identity, "id", in_path=True)
        return self.events[identity]

    def ledger(self) -> list[dict[str, Any]]:
        """Return every successful charge, oldest first: what was really taken, and under which key."""
        return [
            {
                "charge": charge["id"],
                "payment_intent": charge["payment_intent"],
                "amount": charge["amount"],
                "amount_refunded": charge["amount_refunded"],
                "currency": charge["currency"],
                "customer": charge["customer"],
                "metadata": dict(charge["metadata"]),
                "idempotency_key": self.charge_keys[charge["id"]],
                "created": charge["created"],
            }
            for charge in self.charges.values()
            if charge["status"] == "succeeded"
        ]


def now() -> int:
    """Return the time as Stripe writes it: whole Unix seconds."""
    return int(time.time())
