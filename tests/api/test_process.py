"""The API's own process on the real engines: what Kafka gets, what Redis and PostgreSQL answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer
from psycopg.types.json import Jsonb

from core.live_quota import EPOCH_KEY, FRESHNESS_KEY
from core.quantity import UNIT
from core.topics import USAGE_EVENTS
from core.usage_event import IngestLimits
from invoicing.adapters.folder import FolderDocuments
from runtime.kafka_topics import create_topics
from runtime.processes.api import run
from runtime.settings import Settings, load_settings
from streams.adapters.redis_quotas import RedisQuotas
from streams.domain.quota_totals import Total

pytestmark = pytest.mark.integration
STARTED = datetime(2026, 10, 1, tzinfo=UTC)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """Run the process within this test and give a client of it."""
    stop = asyncio.Event()
    server = asyncio.create_task(run(settings, stop))
    base = f"http://127.0.0.1:{settings.api_port}"
    async with httpx2.AsyncClient(base_url=base, timeout=20, trust_env=False) as client:
        try:
            async with asyncio.timeout(20):
                while True:
                    if server.done():
                        server.result()
                    try:
                        await client.get("/health")
                        break
                    except httpx2.ConnectError:
                        await asyncio.sleep(0.02)
            yield client
        finally:
            stop.set()
            await server


async def wait_ready(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.05)


@pytest.fixture
async def settings(migrated: Any, tmp_path: Path) -> Settings:
    found = load_settings(
        home=migrated.home, api_port=free_port(), documents_dir=tmp_path, stripe_webhook_secrets="whsec"
    )
    await create_topics(found)
    return found


@pytest.fixture
def meter(settings: Settings) -> str:
    name = f"requests_{uuid4().hex[:10]}"
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, dimensions, created_at)"
            " VALUES (%s, 'request', %s, 'sum', 'requests', '{endpoint}', %s)",
            (name, name, STARTED),
        )
    return name


@pytest.fixture
def tenant(settings: Settings) -> str:
    name = f"tenant-{uuid4().hex[:12]}"
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'Acme', 'a@acme.invalid', 'US', 'USD', %s)",
            (name, STARTED),
        )
    return name


def event(tenant: str, meter: str, number: int, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "test",
        "type": meter,
        "subject": tenant,
        "time": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
        "data": {"requests": number, **data},
    }


async def records_of(settings: Settings, tenant: str, wanted: int) -> list[Any]:
    """Return the tenant's records on the topic, as soon as there are `wanted`."""
    consumer = AIOKafkaConsumer(
        USAGE_EVENTS.name,
        bootstrap_servers=settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=20_000_000,
    )
    await consumer.start()
    found: list[Any] = []
    try:
        async with asyncio.timeout(30):
            while len(found) < wanted:
                fetched = await consumer.getmany(timeout_ms=200)
                found += [r for records in fetched.values() for r in records if r.key == tenant.encode()]
    finally:
        await consumer.stop()
    return found


async def test_usage_is_on_the_topic_when_202_is_said(settings: Settings, tenant: str, meter: str) -> None:
    async with serving(settings) as client:
        await wait_ready(client)
        one = await client.post("/api/v1/usage", json=event(tenant, meter, 1))
        plain = await client.post(
            "/api/v1/usage",
            json={
                "tenant_id": tenant,
                "metric_type": meter,
                "value": "0.5",
                "timestamp": datetime.now(UTC).isoformat(),
            },
            headers={"idempotency-key": "k1"},
        )
        batch = await client.post("/api/v1/usage/batch", json=[event(tenant, meter, n) for n in range(2, 102)])
    assert (one.status_code, plain.status_code, batch.status_code) == (202, 202, 202)
    assert {result["status"] for result in batch.json()["results"]} == {"accepted"}
    records = await records_of(settings, tenant, 3)
    assert len(records) == 3
    assert len({record.partition for record in records}) == 1
    values = [json.loads(record.value) for record in records]
    assert [value["id"] for value in values if isinstance(value, dict)] == ["e1", "k1"]
    assert [item["id"] for value in values if isinstance(value, list) for item in value] == [
        f"e{n}" for n in range(2, 102)
    ]


async def test_a_batch_of_megabytes_is_cut_as_the_stream_takes_it(settings: Settings, tenant: str, meter: str) -> None:
    # More than the producer's own batches hold.
    events = [event(tenant, meter, number, pad="x" * 30_000) for number in range(150)]
    async with serving(settings) as client:
        await wait_ready(client)
        answer = await client.post("/api/v1/usage/batch", json=events)
    assert answer.status_code == 202
    records = await records_of(settings, tenant, 2)
    assert max(len(record.value) for record in records) <= IngestLimits().max_batch_bytes
    assert [event["id"] for record in records for event in json.loads(record.value)] == [f"e{n}" for n in range(150)]


async def test_a_tenant_that_came_a_moment_ago_is_known(settings: Settings, tenant: str, meter: str) -> None:
    async with serving(settings) as client:
        await wait_ready(client)
        assert (await client.post("/api/v1/usage", json=event(tenant, meter, 1))).status_code == 202
        late = f"{tenant}-late"
        with psycopg.connect(settings.postgres) as connection:
            connection.execute(
                "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
                " VALUES (%s, 'Late', 'l@acme.invalid', 'US', 'USD', %s)",
                (late, STARTED),
            )
        assert (await client.post("/api/v1/usage", json=event(late, meter, 1))).status_code == 202
        refused = await client.post("/api/v1/usage", json=event("nobody-at-all", meter, 1))
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_tenant")


async def test_without_a_broker_the_api_starts_refuses_and_says_so(settings: Settings, tenant: str, meter: str) -> None:
    deaf = settings.model_copy(update={"kafka_url": f"127.0.0.1:{free_port()}"})
    async with serving(deaf) as client:
        answer = await client.post("/api/v1/usage", json=event(tenant, meter, 1))
        assert (answer.status_code, answer.json()["code"]) == (503, "not_confirmed")
        assert answer.headers["retry-after"]
        assert answer.json()["id"] == "e1"
        assert (await client.get("/ready")).json()["checks"] == {
            "kafka": "down", "redis": "up", "postgres": "up", "clickhouse": "up"
        }  # fmt: skip


async def test_live_quotas_come_from_redis_and_limits_from_the_store(
    settings: Settings, tenant: str, meter: str
) -> None:
    with psycopg.connect(settings.postgres) as connection:
        connection.execute("INSERT INTO quota_limits VALUES (%s, %s, 1000.5, true, 'request')", (tenant, meter))
    # Written by the quota agent's own adapter, so that reader and writer cannot drift apart.
    store: Any = redis.asyncio.Redis.from_url(settings.redis)
    before = {key: await store.hgetall(key) for key in (EPOCH_KEY, FRESHNESS_KEY)}
    for partition, segment, quantity, events in (
        (0, 0, 250_000_000_000, 1),
        (2, 0, 700 * UNIT, 7),
        (2, 5, 100 * UNIT, 2),
    ):
        writer = RedisQuotas(store, partition)
        await writer.write([Total(tenant, meter, "2026-10", segment, quantity, events, 3, 1_792_497_540_000)])
        await writer.mark_progress(3, 1_792_497_540_000 + partition)
    params = {"tenant_id": tenant, "meter": meter, "period": "2026-10"}
    async with serving(settings) as client:
        for partition in range(settings.usage_partitions):
            writer = RedisQuotas(store, partition)
            await writer.mark_filled(await writer.begin_filling())
        found = (await client.get("/api/v1/usage/current", params=params)).json()
        await store.hdel(EPOCH_KEY, "p1")
        refilling = (await client.get("/api/v1/usage/current", params=params)).json()
        writer = RedisQuotas(store, 1)
        await writer.mark_filled(await writer.begin_filling())
        everything = (await client.get("/api/v1/usage/current", params={"tenant_id": tenant})).json()
    # A quota agent of another test must find these as it left them.
    for key, fields in before.items():
        await store.delete(key)
        if fields:
            await store.hset(key, mapping=fields)
    await store.aclose()
    assert (found["used"], found["limit"], found["remaining"], found["percent"]) == (
        "800.25",
        "1000.5",
        "200.25",
        "79.98",
    )
    assert (found["hard"], found["events"], found["unit"]) == (True, 10, "request")
    assert (found["stale"], refilling["stale"]) == (False, True)
    assert found["as_of"] is not None
    assert meter in [quota["meter"] for quota in everything["data"]]


def add_invoices(settings: Settings, tenant: str) -> list[str]:
    """Write three months of invoices, the last with a line and a document; returns their ids, oldest first."""
    ids = [f"inv_{uuid4().hex}" for _ in range(3)]
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO plan_versions (plan_id, version, catalogue, digest, document, created_at)"
            " VALUES (%s, 1, 'test', 'test', '{}', %s)",
            (tenant, STARTED),
        )
        connection.execute(
            "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at)"
            " VALUES (%s, %s, %s, 1, %s)",
            (tenant, tenant, tenant, STARTED),
        )
        for month, invoice_id in enumerate(ids, 8):
            start, end = datetime(2026, month, 1, tzinfo=UTC), datetime(2026, month + 1, 1, tzinfo=UTC)
            connection.execute(
                "INSERT INTO invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence,"
                " status, number, currency, subtotal, total, issued_at, due_at, snapshot, snapshot_sha256,"
                " engine_version) VALUES (%s, %s, %s, %s, %s, 1, 'finalized', %s, 'USD', %s, %s, %s, %s, %s, 'x', 't')",
                (
                    invoice_id,
                    tenant,
                    tenant,
                    start,
                    end,
                    invoice_id,
                    Decimal("99.50"),
                    Decimal("99.50"),
                    end,
                    end,
                    Jsonb({}),
                ),
            )
        connection.execute(
            "INSERT INTO invoice_lines (invoice_id, position, item_key, charge_id, kind, description, quantity, unit,"
            " unit_amount, exact_amount, amount, price_digest, evidence)"
            " VALUES (%s, 1, %s, 'api', 'usage', 'Requests', 1990000, 'request', 0.00005, 99.500, 99.50, 'd', '{}')",
            (ids[-1], ids[-1]),
        )
        for invoice_id, location in ((ids[-1], f"{tenant}/{ids[-1]}.pdf"), (ids[0], "../../../../etc/passwd")):
            connection.execute(
                "INSERT INTO invoice_documents VALUES (%s, 'application/pdf', %s, 'abc', 8, %s)",
                (invoice_id, location, STARTED),
            )
    return ids


async def test_invoices_are_paged_shown_and_downloaded(settings: Settings, tenant: str) -> None:
    oldest, middle, newest = add_invoices(settings, tenant)
    # Written by the renderer's own adapter, whose locations must be found whatever the working directory is.
    location = await FolderDocuments(settings.documents).write(f"{tenant}/{newest}.pdf", b"%PDF-1.7")
    with psycopg.connect(settings.postgres) as connection:
        connection.execute("UPDATE invoice_documents SET location = %s WHERE invoice_id = %s", (location, newest))
    pdf = {"accept": "application/pdf"}
    async with serving(settings) as client:
        url = "/api/v1/invoices"
        first = (await client.get(url, params={"tenant_id": tenant, "limit": 2})).json()
        assert ([invoice["invoice_id"] for invoice in first["data"]], first["has_more"]) == ([newest, middle], True)
        rest = (await client.get(url, params={"tenant_id": tenant, "limit": 2, "starting_after": middle})).json()
        assert ([invoice["invoice_id"] for invoice in rest["data"]], rest["has_more"]) == ([oldest], False)
        assert (await client.get(url, params={"tenant_id": tenant, "status": "paid"})).json()["data"] == []
        assert (await client.get(url, params={"starting_after": "inv_none"})).status_code == 404
        shown = (await client.get(f"{url}/{newest}")).json()
        assert (shown["total"], shown["amount_due"], shown["period_start"]) == (
            "99.50",
            "99.50",
            "2026-10-01T00:00:00Z",
        )
        assert [(line["quantity"], line["unit_amount"], line["amount"]) for line in shown["lines"]] == [
            ("1990000", "0.00005", "99.50")
        ]
        assert (await client.get(f"{url}/{newest}", headers=pdf)).content == b"%PDF-1.7"
        assert (await client.get(f"{url}/{middle}", headers=pdf)).json()["code"] == "document_not_ready"
        # A location that leads out of the documents' folder is never followed.
        assert (await client.get(f"{url}/{oldest}", headers=pdf)).json()["code"] == "document_not_ready"
