"""How tests steer the Stripe stand-in: `/_control/…`, which is no part of Stripe's API and needs no key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.standins.loopback import read_json, refuse_control
from tests.standins.stripe_account import Account, Cause
from tests.standins.stripe_cards import CARDS
from tests.standins.stripe_disputes import move_dispute, open_dispute
from tests.standins.stripe_errors import StripeRefusal
from tests.standins.stripe_intents import authenticate_intent, retrieve_intent, settle_intent
from tests.standins.stripe_refunds import move_refund
from tests.standins.stripe_setups import complete_setup

if TYPE_CHECKING:
    from tests.standins.stripe_server import StripeStandIn

_OUTSIDE = Cause(None, None)


def add_stripe_control(app: web.Application, standin: StripeStandIn) -> None:
    """Add the control routes to the stand-in's application."""
    control = StripeControl(standin)
    app.router.add_get("/_control/ledger", control.ledger)
    app.router.add_get("/_control/deliveries", control.deliveries)
    app.router.add_get("/_control/requests", control.requests)
    app.router.add_get("/_control/webhooks", control.show_webhooks)
    app.router.add_post("/_control/webhooks", control.set_webhooks)
    app.router.add_post("/_control/webhooks/release", control.release)
    app.router.add_post("/_control/webhooks/resend", control.resend)
    app.router.add_post("/_control/idempotency_keys/expire", control.expire_keys)
    app.router.add_post("/_control/payment_intents/{id}/authenticate", control.authenticate)
    app.router.add_post("/_control/payment_intents/{id}/settle", control.settle)
    app.router.add_post("/_control/payment_intents/{id}/dispute", control.dispute)
    app.router.add_post("/_control/disputes/{id}", control.move_dispute)
    app.router.add_post("/_control/refunds/{id}/move", control.move_refund)
    app.router.add_post("/_control/setup_intents/{id}/complete", control.complete_setup)
    app.router.add_get("/_control/products", control.products)
    app.router.add_post("/_control/payment_methods/{id}", control.change_card)
    app.router.add_post("/_control/reset", control.reset)


class StripeControl:
    """The handlers behind `/_control/…`."""

    def __init__(self, standin: StripeStandIn) -> None:
        self._standin = standin

    async def ledger(self, _: web.Request) -> web.Response:
        """Every successful charge, oldest first."""
        return web.json_response({"charges": self._standin.account.ledger()})

    async def deliveries(self, _: web.Request) -> web.Response:
        """Every attempt to deliver an event, oldest first."""
        return web.json_response({"deliveries": [asdict(item) for item in self._standin.webhooks.deliveries]})

    async def requests(self, _: web.Request) -> web.Response:
        """Every API request, oldest first, with its key, status and fault."""
        return web.json_response({"requests": [asdict(item) for item in self._standin.log]})

    async def show_webhooks(self, _: web.Request) -> web.Response:
        """The webhook settings, and how many events are held or under way."""
        return web.json_response(self._standin.webhooks.as_json())

    async def set_webhooks(self, request: web.Request) -> web.Response:
        """Change some webhook settings; `url` sets the one endpoint."""
        webhooks = self._standin.webhooks
        try:
            webhooks.settings = webhooks.settings.changed(await read_json(request))
        except (TypeError, ValueError) as error:
            raise refuse_control(str(error)) from error
        return web.json_response(webhooks.as_json())

    async def release(self, request: web.Request) -> web.Response:
        """Send what is held; `{"reverse": true}` newest first."""
        values = await read_json(request) if request.can_read_body else {}
        return web.json_response({"released": self._standin.webhooks.release(reverse=bool(values.get("reverse")))})

    async def resend(self, request: web.Request) -> web.Response:
        """Send one event again: `{"event": "evt_…"}`."""
        event = self._standin.account.events.get((await read_json(request)).get("event"))
        if event is None:
            raise refuse_control("no such event")
        self._standin.webhooks.resend(event)
        return web.json_response({"event": event["id"]})

    async def expire_keys(self, _: web.Request) -> web.Response:
        """Drop all kept results, as Stripe may after 24 hours."""
        self._standin.keys.expire()
        return web.json_response({})

    async def authenticate(self, request: web.Request) -> web.Response:
        """Pass or fail 3-D Secure as the customer: `{"result": "success" | "failure"}`."""
        result = (await read_json(request)).get("result")
        if result not in ("success", "failure"):
            raise refuse_control("result must be success or failure")
        account = self._standin.account
        try:
            intent = authenticate_intent(
                account, request.match_info["id"], success=result == "success", cause=Cause(None, None)
            )
        except StripeRefusal as refusal:
            raise refuse_control(str(refusal)) from refusal
        await self._standin.webhooks.dispatch(account.take_fresh_events())
        return web.json_response(intent)

    async def settle(self, request: web.Request) -> web.Response:
        """Let the bank speak about a debit in process, as its test account says."""
        return await self._act(lambda account: settle_intent(account, request.match_info["id"], _OUTSIDE))

    async def dispute(self, request: web.Request) -> web.Response:
        """Open a dispute of the intent's charge: `{"kind": "chargeback" | "inquiry"}`."""
        kind = (await read_json(request)).get("kind")
        if kind not in ("chargeback", "inquiry"):
            raise refuse_control("kind must be chargeback or inquiry")

        def act(account: Account) -> Any:
            intent = retrieve_intent(account, {}, request.match_info["id"])
            return open_dispute(account, account.charges[intent["latest_charge"]], kind, _OUTSIDE)

        return await self._act(act)

    async def move_dispute(self, request: web.Request) -> web.Response:
        """Move a dispute on: `{"status": "under_review" | "won" | "lost" | "warning_closed"}`."""
        status = (await read_json(request)).get("status")
        if status not in ("under_review", "warning_under_review", "won", "lost", "warning_closed"):
            raise refuse_control("no such status")
        return await self._act(lambda account: move_dispute(account, request.match_info["id"], status, _OUTSIDE))

    async def move_refund(self, request: web.Request) -> web.Response:
        """Let the payer's bank speak about a refund, as its test card says."""
        return await self._act(lambda account: move_refund(account, request.match_info["id"], _OUTSIDE))

    async def complete_setup(self, request: web.Request) -> web.Response:
        """Fill Stripe's form in as the payer: `{"method": "pm_card_visa"}`."""
        method = (await read_json(request)).get("method")
        if method not in CARDS:
            raise refuse_control("no such test method")
        return await self._act(lambda account: complete_setup(account, request.match_info["id"], method, _OUTSIDE))

    async def products(self, _: web.Request) -> web.Response:
        """Every product and price."""
        account = self._standin.account
        return web.json_response({"products": list(account.products.values()), "prices": list(account.prices.values())})

    async def _act(self, act: Callable[[Account], Any]) -> web.Response:
        account = self._standin.account
        try:
            changed = act(account)
        except (StripeRefusal, KeyError) as refusal:
            raise refuse_control(str(refusal)) from refusal
        await self._standin.webhooks.dispatch(account.take_fresh_events())
        return web.json_response(changed)

    async def change_card(self, request: web.Request) -> web.Response:
        """Let an attached card behave like another test card: `{"card": "pm_card_chargeDeclined"}`."""
        identity, name = request.match_info["id"], (await read_json(request)).get("card")
        if identity not in self._standin.account.cards or name not in CARDS:
            raise refuse_control("no such payment method or test card")
        self._standin.account.cards[identity] = CARDS[name]
        return web.json_response({"payment_method": identity, "card": name})

    async def reset(self, _: web.Request) -> web.Response:
        """Forget everything; webhook settings return to those at the start."""
        await self._standin.reset()
        return web.json_response({})
