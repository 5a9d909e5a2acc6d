"""PayPal in a story: its stand-in, our provider, and the door that its webhooks come through."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cryptography import x509

from core.clock import Clock, SystemClock
from payments.adapters.paypal_certificates import PayPalCertificates
from payments.adapters.paypal_client import PayPalClient
from payments.adapters.paypal_order import PayPalWebhookReader
from payments.adapters.paypal_provider import PayPalProvider
from payments.adapters.postgres_captures import PostgresCaptures
from payments.adapters.postgres_store import PostgresPayments
from payments.ask_payers import give_up_waiting, tell_payers
from payments.capture_paypal_order import capture_approved_orders
from payments.domain.payment import Payment
from payments.ports import Payer, PayerAction
from payments.receive_paypal_webhook import receive_paypal_webhook
from runtime.postgres import Pool
from tests.standins.paypal_server import WEBHOOK_ID, PayPalStandIn
from tests.standins.paypal_signing import Authority
from tests.standins.paypal_webhooks import encode_event, headers_of


@dataclass
class PayPalSide:
    """Webhooks are signed and judged by the machine's time, in which the stand-in's certificates are valid."""

    standin: PayPalStandIn
    provider: PayPalProvider
    store: PostgresPayments
    captures: PostgresCaptures
    keys: PayPalCertificates
    clock: Clock
    reader: PayPalWebhookReader = field(default_factory=PayPalWebhookReader)
    delivered: set[str] = field(default_factory=set)
    orders: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def open(cls, pool: Pool, store: PostgresPayments, clock: Clock, authority: Authority) -> PayPalSide:
        standin = PayPalStandIn(authority=authority)
        await standin.start()
        standin.webhooks.settings = standin.webhooks.settings.changed({"timing": "never"})
        client = PayPalClient(standin.client_id, standin.client_secret, standin.url, SystemClock(), timeout_seconds=20)
        provider = PayPalProvider(client, "https://books.example/paid")
        roots = x509.load_pem_x509_certificates(authority.pem)
        keys = PayPalCertificates((standin.cert_prefix,), roots, SystemClock())
        return cls(standin, provider, store, PostgresCaptures(pool), keys, clock)

    async def stop(self) -> None:
        await self.provider.close()
        await self.keys.close()
        await self.standin.stop()

    async def approve(self, payment_id: str) -> None:
        """Follow the link as its payer."""
        await self.standin.approve(self.orders[payment_id])

    async def upkeep(self) -> None:
        await tell_payers(
            store=self.store, payers=self.store, provider=self.provider, notice=self, time_to_act=timedelta(hours=3),
            clock=self.clock,
        )  # fmt: skip
        await give_up_waiting(store=self.store, provider=self.provider, clock=self.clock)
        await capture_approved_orders(
            store=self.store, captures=self.captures, capturer=self.provider, clock=self.clock
        )

    async def take_webhooks(self) -> bool:
        """Deliver what PayPal has not delivered yet, each twice; tells whether there was anything."""
        events = self.standin.account.events.values()
        new = [one for one in events if one["id"] not in self.delivered]
        for event in [each for each in new for _ in range(2)]:
            body = encode_event(event)
            now = SystemClock().now().timestamp()
            headers = headers_of(body, self.standin.signer, self.standin.webhooks.settings, now)
            await receive_paypal_webhook(
                body, {name.lower(): value for name, value in headers.items()}, webhook_ids=[WEBHOOK_ID],
                keys=self.keys, judge=self.provider, inbox=self.store, clock=SystemClock(),
            )  # fmt: skip
            self.delivered.add(event["id"])
        return bool(new)

    async def send_action_link(
        self, payer: Payer, payment: Payment, action: PayerAction, *, is_reminder: bool = False
    ) -> Any:
        """Be the mail server (`PayerNotice`)."""
        self.orders[payment.payment_id] = action.url.rpartition("token=")[2]
