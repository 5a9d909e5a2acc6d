"""Reads what the pipeline shows: lag and rates while it runs; usage, invoices and payments when it is done."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client.parser import text_string_to_metric_families
from psycopg.rows import dict_row
from redis.asyncio import Redis

from core.topics import INVOICING_REQUESTS, USAGE_EVENTS, USAGE_JOURNAL, USAGE_REJECTED, Topic
from runtime.clickhouse import connect_clickhouse
from runtime.kafka_topics import partitions_of
from runtime.settings import Settings

Hourly = dict[tuple[str, str, str], Decimal]


@dataclass
class Lag:
    """Records not yet handled, by stage."""

    meter: int = 0
    quota: int = 0
    warehouse: int = 0


@dataclass
class Counts:
    """Events by outcome, as the meter worker's metrics tell."""

    outcomes: dict[str, int] = field(default_factory=dict)


class KafkaWatch:
    """Reads log ends and committed offsets."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
        self._reader = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)

    async def __aenter__(self) -> KafkaWatch:
        await self._admin.start()
        await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()
        await self._admin.close()

    async def lag(self) -> Lag:
        """Return how many records each stage is behind."""
        return Lag(
            meter=await self._behind(USAGE_EVENTS, "meterbook-meter"),
            quota=await self._behind(USAGE_JOURNAL, "meterbook-quota"),
            warehouse=await self._behind(USAGE_JOURNAL, "meterbook-warehouse"),
        )

    async def invoicing_behind(self) -> int:
        """Return how many invoicing requests are not handled yet."""
        return await self._behind(INVOICING_REQUESTS, "meterbook-invoicing")

    async def dead_letters(self) -> list[tuple[dict[str, str], bytes | None]]:
        """Return all dead letters of usage: headers without their prefix, and the refused bytes."""
        reader = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        await reader.start()
        try:
            partitions = self._partitions(USAGE_REJECTED)
            reader.assign(partitions)
            ends = await reader.end_offsets(partitions)
            await reader.seek_to_beginning(*partitions)
            letters = []
            while any([await reader.position(tp) < end for tp, end in ends.items()]):
                for records in (await reader.getmany(timeout_ms=300)).values():
                    for record in records:
                        headers = {k.removeprefix("meterbook_"): v.decode() for k, v in record.headers}
                        letters.append((headers, record.value))
            return letters
        finally:
            await reader.stop()

    async def _behind(self, topic: Topic, group: str) -> int:
        partitions = self._partitions(topic)
        ends = await self._reader.end_offsets(partitions)
        committed = await self._admin.list_consumer_group_offsets(group, partitions=partitions)
        behind = 0
        for partition, end in ends.items():
            found = committed.get(partition)
            left = max(0, end - max(0, found.offset if found else 0))
            # Each journal entry is followed by its transaction's marker, which nobody reads or commits.
            behind += left // 2 if topic is USAGE_JOURNAL else left
        return behind

    def _partitions(self, topic: Topic) -> list[TopicPartition]:
        count = partitions_of(topic, self._settings)
        return [TopicPartition(topic.name, number) for number in range(count)]


async def read_metric(port: int, name: str, label: str) -> dict[str, float]:
    """Return a metric's values by one label from a process's metrics page; empty while it does not answer."""

    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as page:
            text: str = page.read().decode()
            return text

    try:
        text = await asyncio.to_thread(fetch)
    except OSError:
        return {}
    return {
        sample.labels.get(label, ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def read_warehouse(settings: Settings) -> tuple[Hourly, Hourly]:
    """Return usage by (tenant, meter, hour) from ClickHouse: from the rollups, and the events counted by hour."""
    client = connect_clickhouse(settings)
    try:
        rows = client.query(
            "SELECT tenant, meter, formatDateTime(toStartOfHour(window_start), '%Y-%m-%dT%H') AS hour,"
            " sum(quantity), sum(events) FROM usage_rollups FINAL GROUP BY tenant, meter, hour"
        ).result_rows
    finally:
        client.close()
    quantities = {(tenant, meter, hour): quantity for tenant, meter, hour, quantity, _ in rows}
    events = {(tenant, meter, hour): Decimal(count) for tenant, meter, hour, _, count in rows}
    return quantities, events


def count_raw_events(settings: Settings) -> int:
    """Return how many distinct accepted events ClickHouse holds."""
    client = connect_clickhouse(settings)
    try:
        return int(client.query("SELECT count() FROM usage_events FINAL").result_rows[0][0])
    finally:
        client.close()


async def read_live(settings: Settings, *, period_length: int) -> Hourly:
    """Return live totals from Redis by (tenant, meter, period): length 13 for hours, 7 for months."""
    redis = Redis.from_url(settings.redis, decode_responses=True)
    try:
        found: Hourly = defaultdict(Decimal)
        keys = [key async for key in redis.scan_iter("quota:*", count=1_000)]
        keys = [key for key in keys if len(key.rsplit(":", 1)[1]) == period_length]
        for start in range(0, len(keys), 500):
            async with redis.pipeline(transaction=False) as pipeline:
                for key in keys[start : start + 500]:
                    pipeline.hgetall(key)
                for key, fields in zip(keys[start : start + 500], await pipeline.execute(), strict=True):
                    _, tenant, meter, period = key.split(":")
                    value = sum((Decimal(v) for name, v in fields.items() if name.startswith("q")), Decimal(0))
                    found[tenant.strip("{}"), meter, period] += value
        return found
    finally:
        await redis.aclose()


def read_billing(settings: Settings) -> list[dict[str, Any]]:
    """Return invoices with their lines, payment and document, by tenant."""
    with psycopg.connect(settings.postgres, row_factory=dict_row) as connection:
        invoices = connection.execute(
            "SELECT i.*, t.name, d.location, d.bytes, p.status AS payment_status, p.provider_reference"
            " FROM invoices i JOIN tenants t USING (tenant_id)"
            " LEFT JOIN invoice_documents d ON d.invoice_id = i.invoice_id AND d.media_type = 'application/pdf'"
            " LEFT JOIN payments p ON p.invoice_id = i.invoice_id"
            " AND p.status IN ('pending', 'processing', 'requires_action', 'succeeded')"
            " ORDER BY i.tenant_id, i.period_start, i.sequence"
        ).fetchall()
        lines = connection.execute("SELECT * FROM invoice_lines ORDER BY invoice_id, position").fetchall()
    for invoice in invoices:
        invoice["lines"] = [line for line in lines if line["invoice_id"] == invoice["invoice_id"]]
    return invoices


def read_limits(settings: Settings) -> dict[tuple[str, str], Decimal]:
    """Return quota limits by (tenant, meter)."""
    with psycopg.connect(settings.postgres, row_factory=dict_row) as connection:
        rows = connection.execute("SELECT tenant_id, meter_id, limit_quantity FROM quota_limits").fetchall()
    return {(row["tenant_id"], row["meter_id"]): row["limit_quantity"] for row in rows}
