"""Everything the app needs, in one value that the entry point builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from api.ports import (
    AlertDesk,
    BankClerk,
    CostBook,
    DeadLetterDesk,
    DocumentClerk,
    HeaderWebhookReceiver,
    InvoiceBook,
    InvoiceDesk,
    MethodDesk,
    PaymentDesk,
    ReadinessCheck,
    RegistrySource,
    TenantDesk,
    UsageBook,
    UsagePublisher,
    WebhookReceiver,
)
from core.clock import Clock
from core.input_forms.mapping import FormMapping
from core.usage_event import IngestLimits
from quotas.desk import QuotaDesk


def make_uuid() -> str:
    """Return a fresh id for an event that came without one."""
    return str(uuid4())


@dataclass(frozen=True)
class Dependencies:
    """Ports and bounds. `check_seconds` bounds each readiness check, `body_max_bytes` any request's body."""

    registry: RegistrySource
    publisher: UsagePublisher
    quotas: QuotaDesk
    invoices: InvoiceBook
    stripe_webhooks: WebhookReceiver
    dead_letters: DeadLetterDesk
    usage: UsageBook
    alerts: AlertDesk
    checks: Mapping[str, ReadinessCheck]
    clock: Clock
    ingest_limits: IngestLimits = field(default_factory=IngestLimits)
    input_forms: FormMapping = field(default_factory=FormMapping)
    batch_max_events: int = 1_000
    body_max_bytes: int = 10_000_000
    check_seconds: float = 2.0
    make_id: Callable[[], str] = make_uuid
    costs: CostBook | None = None
    invoice_desk: InvoiceDesk | None = None
    payments: PaymentDesk | None = None
    paypal_webhooks: HeaderWebhookReceiver | None = None
    tenants: TenantDesk | None = None
    methods: MethodDesk | None = None
    bank: BankClerk | None = None
    documents: DocumentClerk | None = None
