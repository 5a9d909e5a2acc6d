"""Runs the HTTP API as a process, or beside others in one: wires stages and stores into `api.create_app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import httpx2
import structlog
import uvicorn

from api.adapters.kafka_publisher import KafkaPublisher
from api.adapters.postgres_alerts import PostgresAlerts
from api.adapters.postgres_invoices import PostgresInvoices
from api.adapters.registry_source import CachedRegistrySource
from api.application import create_app
from api.dependencies import Dependencies
from api.ports import ReadinessCheck
from catalogues.load_input_forms import load_input_forms
from core.clock import Clock, SystemClock
from core.usage_event import IngestLimits
from invoicing.adapters.object_store import open_documents
from invoicing.document_desk import open_document_desk
from invoicing.invoice_desk import open_invoice_desk
from metering.dead_letters.desk import open_desk
from metering.usage_desk import open_usage_desk
from payments.adapters.paypal_certificates import PayPalCertificates, load_roots
from payments.adapters.paypal_provider import PayPalProvider, create_paypal_provider, has_paypal
from payments.adapters.postgres_store import PostgresPayments
from payments.method_desk import open_method_desk
from payments.payment_desk import NoteRefundDesk, PaymentDesk
from payments.ports import WebhookInbox
from payments.receive_paypal_webhook import receive_paypal_webhook
from payments.receive_webhook import receive_webhook
from quotas.desk import open_quota_desk
from rating.running_cost_desk import open_running_costs
from runtime.clickhouse import connection_arguments
from runtime.postgres import Pool, create_pool
from runtime.processes.bank import open_clerk
from runtime.registry import RegistryCache
from runtime.settings import Settings
from runtime.webhooks_out.worker import outgoing_policy
from subscriptions.tenant_desk import PostgresTenantDesk

_DRAIN_SECONDS = 10
log = structlog.get_logger()


class StripeWebhooks:
    """Hands the API's Stripe webhooks to payments; implements `api.ports.WebhookReceiver`."""

    def __init__(self, settings: Settings, inbox: WebhookInbox, clock: Clock) -> None:
        self._secrets = [secret.get_secret_value() for secret in settings.stripe_webhook_secrets]
        self._inbox, self._clock = inbox, clock

    async def receive(self, body: bytes, signature: str | None) -> None:
        """Verify and keep one webhook."""
        await receive_webhook(body, signature, secrets=self._secrets, inbox=self._inbox, clock=self._clock)


class PayPalWebhooks:
    """Hands the API's PayPal webhooks to payments; implements `api.ports.HeaderWebhookReceiver`."""

    def __init__(
        self, settings: Settings, keys: PayPalCertificates, judge: PayPalProvider, inbox: WebhookInbox, clock: Clock
    ) -> None:
        self._webhook_ids = settings.paypal_webhook_ids
        self._keys, self._judge, self._inbox, self._clock = keys, judge, inbox, clock

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Verify and keep one webhook."""
        await receive_paypal_webhook(
            body,
            headers,
            webhook_ids=self._webhook_ids,
            keys=self._keys,
            judge=self._judge,
            inbox=self._inbox,
            clock=self._clock,
        )


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; open requests get ten seconds to end."""
    async with open_dependencies(settings) as dependencies:
        server = _Server(
            uvicorn.Config(
                create_app(dependencies),
                host=settings.api_host,
                port=settings.api_port,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                lifespan="off",
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(), name="api-server")
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.should_exit = True
        await serving


@asynccontextmanager
async def open_dependencies(settings: Settings) -> AsyncIterator[Dependencies]:
    """Open everything the API needs; stores that are away are waited for by requests, not by the start."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        pool = create_pool(settings)
        await pool.open(wait=False)
        stack.push_async_callback(pool.close)
        publisher = KafkaPublisher(settings)
        await publisher.open()
        stack.push_async_callback(publisher.close)
        quotas = await stack.enter_async_context(open_quota_desk(settings, pool, clock))
        http = await stack.enter_async_context(httpx2.AsyncClient(follow_redirects=False, timeout=2.0))
        invoices = PostgresInvoices(pool, open_documents(settings).read)
        dead_letters = await stack.enter_async_context(open_desk(settings, pool))
        usage = await stack.enter_async_context(open_usage_desk(settings))
        costs = await stack.enter_async_context(open_running_costs(settings))
        invoice_desk = await stack.enter_async_context(open_invoice_desk(settings, pool, NoteRefundDesk(clock)))
        documents = await stack.enter_async_context(open_document_desk(settings, pool))
        yield Dependencies(
            documents=documents,
            registry=_registry(settings, pool, clock),
            publisher=publisher,
            quotas=quotas,
            invoices=invoices,
            stripe_webhooks=StripeWebhooks(settings, PostgresPayments(pool), clock),
            dead_letters=dead_letters,
            usage=usage,
            costs=costs,
            invoice_desk=invoice_desk,
            payments=PaymentDesk(pool, clock),
            methods=await stack.enter_async_context(open_method_desk(settings, pool)),
            bank=open_clerk(settings, pool, clock),
            paypal_webhooks=await _open_paypal(settings, pool, stack, clock),
            tenants=PostgresTenantDesk(pool, clock),
            alerts=PostgresAlerts(pool, outgoing_policy(settings), clock),
            checks={
                "kafka": publisher.check,
                "redis": quotas.view.check,
                "postgres": invoices.check,
                "clickhouse": _clickhouse_check(settings, http),
            },
            clock=clock,
            ingest_limits=IngestLimits(
                max_bytes=settings.event_max_bytes,
                max_ahead_us=settings.event_max_ahead_seconds * 1_000_000,
                max_age_us=settings.event_max_age_days * 86_400 * 1_000_000,
            ),
            input_forms=load_input_forms(settings.input_forms_file),
            batch_max_events=settings.batch_max_events,
        )


async def _open_paypal(settings: Settings, pool: Pool, stack: AsyncExitStack, clock: Clock) -> PayPalWebhooks | None:
    if not has_paypal(settings):
        return None
    judge = create_paypal_provider(settings, clock)
    stack.push_async_callback(judge.close)
    keys = PayPalCertificates(settings.paypal_cert_prefixes, load_roots(settings.paypal_ca_file), clock)
    stack.push_async_callback(keys.close)
    return PayPalWebhooks(settings, keys, judge, PostgresPayments(pool), clock)


def _registry(settings: Settings, pool: Pool, clock: Clock) -> CachedRegistrySource:
    seconds = settings.registry_refresh_seconds
    return CachedRegistrySource(RegistryCache(pool, clock, refresh_seconds=seconds), clock, refresh_seconds=seconds)


def _clickhouse_check(settings: Settings, http: httpx2.AsyncClient) -> ReadinessCheck:
    arguments = connection_arguments(settings)
    scheme = "https" if arguments["secure"] else "http"

    async def check() -> None:
        (await http.get(f"{scheme}://{arguments['host']}:{arguments['port']}/ping")).raise_for_status()

    return check


class _Server(uvicorn.Server):
    """Uvicorn that leaves signals to the process: several servers and consumers share it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield
