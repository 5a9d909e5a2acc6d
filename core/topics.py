"""Every Kafka topic: its key, payload, producers, consumers, retention. Stages meet only here.

`docs/architecture.md` draws these; `runtime.kafka_topics` creates them before any worker starts (a consumer waiting
for a topic that does not exist ignores SIGTERM). Partition counts are never changed in place: dedupe relies on a
tenant's events meeting on one partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

DAY_MS = 86_400_000


class Partitioning(Enum):
    """How many partitions a topic has."""

    USAGE = "as many as usage.events"
    BILLING = "a few: throughput of billing, not of usage"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic; `retention_ms` of -1 keeps for ever."""

    name: str
    key: str
    payload: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    retention_ms: int
    partitioning: Partitioning
    log_append_time: bool = False
    # Larger than any source record, so that a refused record with its headers always fits its dead-letter topic.
    max_bytes: int = 20_000_000


USAGE_EVENTS = Topic(
    "usage.events",
    key="tenant",
    payload="CloudEvents 1.0, structured JSON: one event or an array of events",
    producers=("producers", "api", "sdk", "meter worker (events found on another tenant's partition)"),
    consumers=("meter worker", "warehouse agent"),
    retention_ms=40 * DAY_MS,
    partitioning=Partitioning.USAGE,
    # Received time decides "too old" and "in the future", so it comes from the broker: every reader of the record
    # judges it alike, however often it is read.
    log_append_time=True,
    max_bytes=2_000_000,
)
USAGE_JOURNAL = Topic(
    "usage.journal",
    key="none: partition number of the source",
    payload="core.journal.JournalEntry, msgpack",
    producers=("meter worker",),
    consumers=("meter worker (its state)", "quota agent", "warehouse agent", "rating consumer"),
    retention_ms=40 * DAY_MS,
    partitioning=Partitioning.USAGE,
)
USAGE_REJECTED = Topic(
    "usage.rejected",
    key="as on the source record",
    payload="the refused bytes; code, reason and place in headers (core.dead_letter)",
    producers=("meter worker",),
    consumers=("people, by command and API",),
    retention_ms=90 * DAY_MS,
    partitioning=Partitioning.USAGE,
)
USAGE_RATED = Topic(
    "usage.rated",
    key="tenant",
    payload="core.messages.RunningCost, JSON",
    producers=("rating consumer",),
    consumers=("spend alerts, dashboards",),
    retention_ms=40 * DAY_MS,
    partitioning=Partitioning.BILLING,
)
QUOTA_CROSSED = Topic(
    "quota.crossed",
    key="tenant",
    payload="core.messages.QuotaCrossed, JSON",
    producers=("quota agent",),
    consumers=("alert agent",),
    retention_ms=40 * DAY_MS,
    partitioning=Partitioning.BILLING,
)
INVOICING_REQUESTS = Topic(
    "invoicing.requests",
    key="tenant",
    payload="core.messages.InvoicingRequest, JSON",
    producers=("invoice run", "api"),
    consumers=("invoicing consumer",),
    retention_ms=40 * DAY_MS,
    partitioning=Partitioning.BILLING,
)
INVOICE_FINALIZED = Topic(
    "invoice.finalized",
    key="tenant",
    payload="core.messages.InvoiceFinalized, JSON",
    producers=("outbox of invoicing",),
    consumers=("document renderer", "payments consumer", "warehouse of invoiced lines"),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)
INVOICE_VOIDED = Topic(
    "invoice.voided",
    key="tenant",
    payload="core.messages.InvoiceVoided, JSON",
    producers=("outbox of invoicing",),
    consumers=("document renderer", "warehouse of invoiced lines", "payments consumer"),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)
PAYMENT_SETTLED = Topic(
    "payment.settled",
    key="tenant",
    payload="core.messages.PaymentSettled, JSON",
    producers=("outbox of payments",),
    consumers=("invoicing (marks the invoice paid)", "outgoing webhooks"),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)
PAYMENT_FAILED = Topic(
    "payment.failed",
    key="tenant",
    payload="core.messages.PaymentFailed, JSON",
    producers=("outbox of payments",),
    consumers=("dunning", "outgoing webhooks"),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)
PAYMENT_REFUNDED = Topic(
    "payment.refunded",
    key="tenant",
    payload="core.messages.PaymentRefunded, JSON",
    producers=("outbox of payments",),
    consumers=("invoicing and ledger",),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)
PAYMENT_DISPUTED = Topic(
    "payment.disputed",
    key="tenant",
    payload="core.messages.PaymentDisputed, JSON",
    producers=("outbox of payments",),
    consumers=("ledger", "dunning"),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)
ACCOUNT_STANDING = Topic(
    "account.standing",
    key="tenant",
    payload="core.messages.AccountStanding, JSON",
    producers=("outbox of dunning",),
    # Entitlements read the standing itself where dunning keeps it.
    consumers=("whoever shuts the account out or lets it in, by Kafka or webhook",),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)
BILLING_REJECTED = Topic(
    "billing.rejected",
    key="as on the source record",
    payload="the refused bytes; code, reason and place in headers (core.dead_letter)",
    producers=("consumers of billing topics",),
    consumers=("people, by command and API",),
    retention_ms=-1,
    partitioning=Partitioning.BILLING,
)

ALL_TOPICS: tuple[Topic, ...] = (
    USAGE_EVENTS,
    USAGE_JOURNAL,
    USAGE_REJECTED,
    USAGE_RATED,
    QUOTA_CROSSED,
    INVOICING_REQUESTS,
    INVOICE_FINALIZED,
    INVOICE_VOIDED,
    PAYMENT_SETTLED,
    PAYMENT_FAILED,
    PAYMENT_REFUNDED,
    PAYMENT_DISPUTED,
    ACCOUNT_STANDING,
    BILLING_REJECTED,
)
