"""Fixtures of PayPal: the stand-in in this process, a provider that talks to it, payments that exist on paper only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from core.clock import SystemClock
from core.money import Money
from payments.adapters.paypal_client import PayPalClient
from payments.adapters.paypal_provider import PayPalProvider
from payments.domain.payment import Payment, payment_id_of
from payments.domain.refund import Refund, refund_id_of
from payments.ports import PaymentMethod, StoredWebhook
from tests.standins.paypal_server import PayPalStandIn
from tests.standins.paypal_signing import Authority

RETURN_URL = "https://books.example/paid"
METHOD = PaymentMethod("acme", "paypal", "acme", "approval")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def paypal(authority: Authority) -> AsyncIterator[PayPalStandIn]:
    standin = PayPalStandIn(authority=authority)
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def provider(paypal: PayPalStandIn) -> AsyncIterator[PayPalProvider]:
    client = PayPalClient(paypal.client_id, paypal.client_secret, paypal.url, SystemClock(), timeout_seconds=5)
    provider = PayPalProvider(client, RETURN_URL)
    yield provider
    await provider.close()


@dataclass
class MemoryInbox:
    kept: dict[str, StoredWebhook] = field(default_factory=dict)

    async def add(self, webhook: StoredWebhook, received_at: datetime) -> bool:
        is_new = webhook.event_id not in self.kept
        self.kept.setdefault(webhook.event_id, webhook)
        return is_new


def payment_of(name: str, amount: str = "125.40", currency: str = "USD", reference: str | None = None) -> Payment:
    return Payment(
        payment_id=payment_id_of(f"inv_{name}", 1),
        invoice_id=f"inv_{name}",
        tenant_id="acme",
        attempt=1,
        provider="paypal",
        amount=Money(Decimal(amount), currency),
        created_at=datetime.now(UTC),
        provider_reference=reference,
    )


def refund_of(payment: Payment, amount: str, key: str = "1") -> Refund:
    return Refund(
        refund_id=refund_id_of(payment.payment_id, key),
        payment_id=payment.payment_id,
        invoice_id=payment.invoice_id,
        tenant_id=payment.tenant_id,
        provider="paypal",
        amount=Money(Decimal(amount), payment.amount.currency),
        reason="asked for",
        requested_by="test",
        created_at=datetime.now(UTC),
    )
