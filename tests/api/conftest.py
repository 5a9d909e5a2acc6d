"""Fixtures of the API: the app on fakes that remember, for what needs no store, and the real process elsewhere."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI

from api.application import create_app
from api.dependencies import Dependencies
from api.ports import Document, DocumentClerk, DocumentNotReadyError, InvoiceDesk
from catalogues.load_input_forms import load_input_forms
from core.clock import ManualClock
from core.errors import NotFoundError
from core.meters import Meter, Registry
from core.usage_event import IngestLimits
from quotas.desk import QuotaDesk
from tests.quotas.memory_books import (
    MemoryDesk,
    MemoryEntitlements,
    MemoryHistory,
    MemoryReservations,
    MemoryView,
)

NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)
METERS = (
    Meter("api_requests", "request", "api.request", "sum", "requests", ("endpoint", "method")),
    Meter("agent_executions", "execution", "agent.execution", "count", None, ("agent_type",)),
    Meter("llm_input_tokens", "token", "llm.completion", "sum", "input_tokens", ("model",)),
)


@dataclass
class MemoryRegistry:
    """A registry whose newest reading may know more than the current one."""

    known: Registry = field(default_factory=lambda: Registry.of(["acme", "globex"], METERS))
    later: Registry | None = None
    looks: int = 0

    async def current(self) -> Registry:
        return self.known

    async def newest(self) -> Registry:
        self.looks += 1
        return self.later or self.known


@dataclass
class MemoryPublisher:
    """Remembers what was published; raises `failure` instead if there is one."""

    records: list[tuple[str, bytes]] = field(default_factory=list)
    failure: Exception | None = None

    async def publish(self, records: Sequence[tuple[str, bytes]]) -> None:
        if self.failure is not None:
            raise self.failure
        self.records.extend(records)


@dataclass
class MemoryInvoices:
    invoices: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)

    async def list_invoices(self, **asked: Any) -> list[dict[str, Any]]:
        self.asked.append(asked)
        return self.invoices[: asked["limit"]]

    async def find_invoice(self, invoice_id: str) -> dict[str, Any]:
        for invoice in self.invoices:
            if invoice["invoice_id"] == invoice_id:
                return invoice
        raise NotFoundError(f"no invoice {invoice_id!r}")

    async def find_document(self, invoice_id: str, media_type: str) -> Document:
        await self.find_invoice(invoice_id)
        if invoice_id not in self.documents:
            raise DocumentNotReadyError(f"invoice {invoice_id} is not rendered")
        return Document(self.documents[invoice_id], "00ff", f"{invoice_id}.pdf")


@dataclass
class MemoryWebhooks:
    received: list[tuple[bytes, str | None]] = field(default_factory=list)
    failure: Exception | None = None

    async def receive(self, body: bytes, signature: str | None) -> None:
        if self.failure is not None:
            raise self.failure
        self.received.append((body, signature))


@dataclass
class MemoryDeadLetters:
    """Remembers what was asked; answers with `answer` or raises `failure`."""

    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        async def call(*place: Any, **asked: Any) -> dict[str, Any]:
            if self.failure is not None:
                raise self.failure
            self.asked.append((name, place, asked))
            return self.answer

        return call


@dataclass
class MemoryUsage:
    """Remembers what was asked; answers with `answer` or raises `failure`."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    failure: Exception | None = None

    async def query(self, registry: Registry, **asked: Any) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        self.asked.append(asked)
        return self.answer

    async def summarize(self, registry: Registry, **asked: Any) -> dict[str, Any]:
        return await self.query(registry, **asked)


@dataclass
class MemoryAlerts:
    """What was asked; the rules and endpoints themselves are tested on the real store."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def list_alerts(self, **asked: Any) -> list[dict[str, Any]]:
        self.asked.append(asked)
        return self.alerts[: asked["limit"]]

    async def resend_alert(self, alert_id: str) -> int:
        return 0

    async def list_rules(self) -> list[dict[str, Any]]:
        return []

    async def put_rule(self, rule_id: str, document: dict[str, Any]) -> dict[str, Any]:
        return {"rule_id": rule_id, **document}

    async def delete_rule(self, rule_id: str) -> None:
        raise NotFoundError(f"no alert rule {rule_id!r}")

    async def list_endpoints(self) -> list[dict[str, Any]]:
        return []

    async def put_endpoint(self, endpoint_id: str, document: dict[str, Any]) -> dict[str, Any]:
        return {"endpoint_id": endpoint_id, **document}

    async def rotate_secret(self, endpoint_id: str) -> dict[str, Any]:
        raise NotFoundError(f"no webhook endpoint {endpoint_id!r}")


shipped_input_forms = functools.cache(load_input_forms)


@dataclass
class Fakes:
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    quotas: MemoryView = field(default_factory=MemoryView)
    entitlements: MemoryEntitlements = field(default_factory=MemoryEntitlements)
    usage_history: MemoryHistory = field(default_factory=MemoryHistory)
    reservations: MemoryReservations = field(default_factory=MemoryReservations)
    invoices: MemoryInvoices = field(default_factory=MemoryInvoices)
    invoice_desk: InvoiceDesk | None = None
    documents: DocumentClerk | None = None
    dead_letters: MemoryDeadLetters = field(default_factory=MemoryDeadLetters)
    usage: MemoryUsage = field(default_factory=MemoryUsage)
    alerts: MemoryAlerts = field(default_factory=MemoryAlerts)
    webhooks: MemoryWebhooks = field(default_factory=MemoryWebhooks)
    checks: dict[str, Any] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    past_due_is_refused: bool = False

    def __post_init__(self) -> None:
        self.entitlements.meters = tuple(meter.meter_id for meter in METERS)
        self.entitlements.limit("acme", "api_requests", Decimal(1000), hard=False)
        self.reservations = MemoryReservations(self.clock)
        self.decisions = MemoryDesk(self.quotas, self.clock)

    def dependencies(self) -> Dependencies:
        return Dependencies(
            registry=self.registry,
            publisher=self.publisher,
            quotas=QuotaDesk(
                self.quotas,
                self.usage_history,
                self.entitlements,
                self.reservations,
                self.decisions,
                self.clock,
                self.past_due_is_refused,
            ),
            invoices=self.invoices,
            stripe_webhooks=self.webhooks,
            dead_letters=self.dead_letters,
            usage=self.usage,
            alerts=self.alerts,
            checks=self.checks,
            clock=self.clock,
            ingest_limits=IngestLimits(max_bytes=4_096),
            input_forms=shipped_input_forms(),
            batch_max_events=100,
            body_max_bytes=200_000,
            check_seconds=0.2,
            make_id=lambda: "made-here",
            invoice_desk=self.invoice_desk,
            documents=self.documents,
        )


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


class Current:
    """The dependencies of the test that runs, for an app that all tests share: to build one takes a tenth of a second.

    What routes keep when they are made is looked up when it is used.
    """

    def __init__(self) -> None:
        self.running: Dependencies | None = None

    def __getattr__(self, name: str) -> Any:
        return Late(self, name) if name in ("quotas", "alerts") else getattr(self.running, name)


@dataclass(frozen=True)
class Late:
    """A part of the current dependencies."""

    current: Current
    part: str

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(self.current.running, self.part), name)


@functools.cache
def shared_app() -> tuple[FastAPI, Current]:
    current = Current()
    current.running = Fakes().dependencies()
    return create_app(cast("Dependencies", current)), current


@asynccontextmanager
async def open_client(fakes: Fakes) -> AsyncIterator[httpx2.AsyncClient]:
    app, current = shared_app()
    before, current.running = current.running, fakes.dependencies()
    # Errors come back as the caller would see them, not as exceptions in the test.
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
            yield client
    finally:
        current.running = before


@pytest.fixture
async def client(fakes: Fakes) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_client(fakes) as client:
        yield client
