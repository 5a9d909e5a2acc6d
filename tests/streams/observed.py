"""What the stores hold, read with the stores' own clients and nothing of the product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import redis
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from tests.on_topics import Refused, read_all
from tests.streams.oracle import Expected, MeterRule, expect, loads


@dataclass(frozen=True)
class Urls:
    """Where the engines are."""

    kafka: str
    clickhouse: str
    redis: str
    postgres: str


def clickhouse(url: str) -> Any:
    """Return a client of the URL's database."""
    parts = urlsplit(url)
    return clickhouse_connect.get_client(
        host=parts.hostname, port=parts.port, database=parts.path.strip("/"), autogenerate_session_id=False
    )


def rollups(url: str, tenants: Iterable[str]) -> dict[Any, Decimal]:
    """Return window sums of `usage_rollups`, keyed as the oracle's."""
    client = clickhouse(url)
    rows = client.query(
        "SELECT tenant, meter, dimensions, window_start, sum(quantity), sum(events) FROM usage_rollups FINAL"
        " WHERE tenant IN %(tenants)s GROUP BY ALL",
        parameters={"tenants": list(tenants)},
    ).result_rows
    client.close()
    return {
        (tenant, meter, tuple(sorted(dimensions.items())), start.replace(tzinfo=UTC)): Decimal(quantity)
        for tenant, meter, dimensions, start, quantity, _ in rows
    }


def raw_events(url: str, tenants: Iterable[str]) -> list[dict[str, Any]]:
    """Return the distinct accepted events of `usage_events`, in the CloudEvents form."""
    client = clickhouse(url)
    rows = client.query(
        "SELECT tenant, customer, source, id, type, time, data FROM usage_events FINAL WHERE tenant IN %(tenants)s",
        parameters={"tenants": list(tenants)},
    ).result_rows
    client.close()
    return [
        {
            "subject": f"{tenant}/{customer}" if customer else tenant,
            "source": source,
            "id": event_id,
            "type": kind,
            "time": time.replace(tzinfo=UTC).isoformat(),
            "data": loads(data),
        }
        for tenant, customer, source, event_id, kind, time, data in rows
    ]


def live_periods(url: str, tenants: Iterable[str]) -> dict[tuple[str, str, str], Decimal]:
    """Return the sums of Redis' live quotas by (tenant, meter, period)."""
    sums: dict[tuple[str, str, str], Decimal] = {}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for tenant in tenants:
            for key in client.scan_iter(f"quota:{{{tenant}}}:*", count=10_000):
                _, _, meter, period = key.split(":", 3)
                fields = client.hgetall(key)
                sums[tenant, meter, period] = sum(
                    (Decimal(value) for name, value in fields.items() if name.startswith("q")), Decimal()
                )
    return sums


async def dead_letters(bootstrap: str) -> dict[tuple[int, int, int], Refused]:
    """Return all of `usage.rejected`, committed ones only, by (source partition, offset, index)."""
    found: dict[tuple[int, int, int], Refused] = {}
    counted: Counter[tuple[int, int, int]] = Counter()
    async for record in read_all(bootstrap, "usage.rejected"):
        headers = {name: value.decode() for name, value in record.headers}
        if "ce_type" in headers:
            continue  # put there by the dead-letter desk's tests, which share the stack
        place = tuple(int(headers[f"meterbook_{name}"]) for name in ("partition", "offset", "index"))
        counted[place] += 1
        found[place] = Refused(headers["meterbook_code"], headers["meterbook_reason"], record.key, record.value)
    assert set(counted.values()) <= {1}, f"dead letters written twice: {[p for p, n in counted.items() if n > 1]}"
    return found


async def unread(bootstrap: str, group: str, topic: str) -> int:
    """Return how many committed records lie after the group's committed offsets."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
    )
    await reader.start()
    try:
        places = [TopicPartition(topic, number) for number in sorted(await reader._client._wait_on_metadata(topic))]
        try:
            stored = await admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:
            # The broker makes the topic of offsets when the first group asks.
            stored = {}
        reader.assign(places)
        ends = await reader.end_offsets(places)
        left = 0
        for place in places:
            start = max(stored[place].offset, 0) if place in stored else 0
            reader.seek(place, start)
        for place in places:
            while await reader.position(place) < ends[place]:
                left += len((await reader.getmany(place, timeout_ms=100)).get(place, []))
        return left
    finally:
        await reader.stop()
        await admin.close()


def compare(expected: Expected, urls: Urls, tenants: list[str], rules: tuple[MeterRule, ...]) -> list[str]:
    """Return every difference between the oracle and ClickHouse's rollups, its raw events and Redis."""
    faults = []
    raw = raw_events(urls.clickhouse, tenants)
    found = {(event["subject"].split("/")[0], event["source"], event["id"]) for event in raw}
    faults += _differences("raw identities", dict.fromkeys(expected.identities, 1), dict.fromkeys(found, 1))
    faults += _differences("sums of raw events", expected.windows, expect(raw, rules).windows)
    faults += _differences("rollups", expected.windows, rollups(urls.clickhouse, tenants))
    faults += _differences("redis", expected.periods, live_periods(urls.redis, tenants))
    return faults


def _differences(what: str, expected: dict[Any, Any], found: dict[Any, Any]) -> list[str]:
    wrong = [
        f"{what}: {key}: expected {expected.get(key)}, found {found.get(key)}"
        for key in sorted({*expected, *found}, key=repr)
        if expected.get(key) != found.get(key)
    ]
    return [f"{what}: {len(wrong)} of {len(expected)} differ", *wrong[:3]] if wrong else []
