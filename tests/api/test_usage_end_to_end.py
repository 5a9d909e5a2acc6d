"""Usage in every form, corrected over HTTP, through the stream's own processes to ClickHouse and the live quota."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from aiokafka import AIOKafkaProducer

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.topics import USAGE_EVENTS
from runtime.settings import Settings
from tests.api.test_process import STARTED, free_port, serving, wait_ready
from tests.streams.observed import clickhouse
from tests.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
URL = "/api/v1/usage"


@pytest.fixture
def workers(settings: Settings, tmp_path: Path) -> Iterator[list[WorkerProcess]]:
    """The stream's three workers, quick to commit."""
    started = [
        WorkerProcess(
            name, settings.home, tmp_path, METERBOOK_MICRO_BATCH_MS="50", METERBOOK_REGISTRY_REFRESH_SECONDS="1"
        )
        for name in ("meter", "warehouse", "quota")
    ]
    yield started
    for worker in started:
        worker.discard()


@pytest.fixture
async def tenant(settings: Settings) -> str:
    await apply_files(settings, shipped_files())
    name = f"forms-{uuid4().hex[:12]}"
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'Acme', 'a@acme.invalid', 'US', 'USD', %s)",
            (name, STARTED),
        )
    return name


async def post(client: httpx2.AsyncClient, path: str, **request: Any) -> None:
    answer = await client.post(URL + path, **request)
    assert answer.status_code == 202, answer.text


async def send_every_form(client: httpx2.AsyncClient, tenant: str, at: datetime) -> None:
    def requests(event_id: str, quantity: int, **changes: Any) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": event_id,
            "source": "gateway",
            "type": "api.request",
            "subject": tenant,
            "time": at.isoformat(),
            "data": {"requests": quantity},
            **changes,
        }

    usage: dict[str, Any] = {"tenant_id": tenant, "timestamp": at.isoformat()}
    await post(client, "", json=requests("e1", 3))
    await post(client, "", json=requests("e2", 5))
    await post(client, "", json={**usage, "metric_type": "api_requests", "value": "2.5", "id": "p1"})
    await post(client, "", json={**usage, "cpu_seconds": "812.25", "executions": 12, "id": "node-7"})
    # Sent again: the same events, so nothing more is counted.
    await post(client, "/report", json={**usage, "cpu_seconds": "812.25", "executions": 12, "id": "node-7"})
    service = {"tenant_id": tenant, "service": "analytics", "usage_type": "query", "quantity": 3}
    await post(client, "", json={**service, "timestamp": str(at.timestamp()), "id": "s1"})
    period = {
        "period_start": (at - timedelta(minutes=5)).isoformat(),
        "period_end": at.isoformat(),
        "source": "monitor",
    }
    reported = {"tenant_id": tenant, "resource_type": "memory", "quantity": "1.5", "unit": "GB-hour", "id": "m1"}
    await post(client, "", json={**reported, **period})
    binary = {f"ce-{name}": text for name, text in requests("b1", 0).items() if name != "data"}
    await post(client, "", json={"requests": 10}, headers=binary)
    packed = gzip.compress(json.dumps([requests("g1", 1), requests("g2", 1)]).encode())
    await post(
        client, "/batch", content=packed, headers={"content-type": "application/json", "content-encoding": "gzip"}
    )


async def produce_binary(settings: Settings, tenant: str, at: datetime) -> None:
    attributes = {"specversion": "1.0", "source": "node", "type": "api.request", "subject": tenant}
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()
    try:
        for named in ({"id": "k1", "time": at.isoformat()}, {"id": "k2"}):  # the second lacks its time
            headers = [(f"ce_{name}", text.encode()) for name, text in (attributes | named).items()]
            headers.append(("content-type", b"application/json"))
            value = b'{"requests": 0.25}'
            await producer.send_and_wait(USAGE_EVENTS.name, value, key=tenant.encode(), headers=headers)
    finally:
        await producer.stop()


async def correct(client: httpx2.AsyncClient, tenant: str, at: datetime) -> None:
    named = {"tenant_id": tenant, "reason": "a test"}
    await post(client, "/void", json={**named, "corrects": {"source": "gateway", "id": "e1"}, "id": "v1"})
    content = {"type": "api.request", "time": at.isoformat(), "data": {"requests": 4}}
    target = {"source": "gateway", "id": "e2"}
    await post(client, "/amend", json={**named, "corrects": target, "event": content, "id": "a1"})
    # Beyond what an ordinary event may be late.
    then = at - timedelta(days=60)
    covered = {"start": (then - timedelta(hours=1)).isoformat(), "end": (then + timedelta(hours=1)).isoformat()}
    found = {"id": "old-1", "type": "api.request", "time": then.isoformat(), "data": {"requests": 7}}
    await post(client, "/backfill", json={**named, **covered, "events": [found], "id": "f1"})


def totals(settings: Settings, tenant: str) -> dict[str, Decimal]:
    client = clickhouse(settings.clickhouse)
    rows = client.query(
        "SELECT meter, sum(quantity) FROM usage_rollups FINAL WHERE tenant = %(tenant)s GROUP BY meter",
        parameters={"tenant": tenant},
    ).result_rows
    client.close()
    return dict(rows)


async def test_every_form_and_every_correction_is_counted_once(
    settings: Settings, workers: list[WorkerProcess], tenant: str
) -> None:
    expected = {
        # (3 - 3) + (5 - 5) + 4 + 2.5 + 10 + 1 + 1 + 0.25, and 7 of two months ago
        "api_requests": Decimal("25.75"),
        "cpu_time": Decimal("812.25"),
        "executions": Decimal("12"),
        "service_usage": Decimal("3"),
        "memory": Decimal("1.5"),
    }
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    async with serving(settings.model_copy(update={"api_port": free_port()})) as client:
        await wait_ready(client)
        await send_every_form(client, tenant, at)
        await produce_binary(settings, tenant, at)
        await correct(client, tenant, at)
        found: dict[str, Decimal] = {}
        live: dict[str, str] = {}
        try:
            async with asyncio.timeout(200):
                while found != expected or live.get("api_requests") != "18.75":
                    assert all(worker.running for worker in workers)
                    await asyncio.sleep(0.1)
                    found = totals(settings, tenant)
                    params = {"tenant_id": tenant, "period": at.strftime("%Y-%m")}
                    answer = (await client.get(f"{URL}/current", params=params)).json()
                    live = {quota["meter"]: quota["used"] for quota in answer["data"]}
        except (TimeoutError, AssertionError):
            pytest.fail("\n".join([f"{found=} {live=}", *(worker.tail() for worker in workers)]))
