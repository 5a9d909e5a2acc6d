"""What the stores hold, read with the stores' own clients and nothing of the product."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import redis
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from tests.on_topics import Refused, read_all

# What stands behind each group: how far it has read tells how far the pipeline is.
STAGES = {
    "meter": ("meterbook-meter", "usage.events"),
    "quota": ("meterbook-quota", "usage.journal"),
    "warehouse": ("meterbook-warehouse", "usage.journal"),
    "invoicing": ("meterbook-invoicing", "invoicing.requests"),
    "payments": ("payments", "invoice.finalized"),
    "renderer": ("meterbook-renderer", "invoice.finalized"),
}


class Store:
    """A ClickHouse database."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._client = clickhouse_connect.get_client(
            host=parts.hostname, port=parts.port, database=parts.path.strip("/"), autogenerate_session_id=False
        )

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        """Return the rows of a query."""
        found: list[Any] = list(self._client.query(query, parameters=parameters).result_rows)
        return found

    def windows(self, tenants: list[str]) -> dict[Any, tuple[Decimal, int]]:
        """Return minute totals, keyed as the oracle's; those that came to nothing are left out."""
        rows = self.rows(
            "SELECT tenant, meter, dimensions, window_start, sum(quantity) AS q, sum(events) AS n"
            " FROM usage_rollups FINAL WHERE tenant IN %(tenants)s GROUP BY ALL HAVING q != 0 OR n != 0",
            tenants=tenants,
        )
        return {(t, m, tuple(sorted(d.items())), w.replace(tzinfo=UTC)): (Decimal(q), n) for t, m, d, w, q, n in rows}

    def late(self, tenants: list[str]) -> dict[Any, tuple[Decimal, int]]:
        """Return what was marked for adjustment, keyed as `windows`."""
        rows = self.rows(
            "SELECT tenant, meter, dimensions, window_start, sum(quantity) AS q, sum(events) AS n"
            " FROM usage_late FINAL WHERE tenant IN %(tenants)s GROUP BY ALL",
            tenants=tenants,
        )
        return {(t, m, tuple(sorted(d.items())), w.replace(tzinfo=UTC)): (Decimal(q), n) for t, m, d, w, q, n in rows}

    def samples(self, tenants: list[str]) -> Counter[Any]:
        """Return the samples that were not taken out, keyed as the oracle's."""
        rows = self.rows(
            "SELECT tenant, meter, dimensions, toUnixTimestamp64Micro(time), quantity, text"
            " FROM usage_samples FINAL WHERE removed = 0 AND tenant IN %(tenants)s",
            tenants=tenants,
        )
        return Counter((t, m, tuple(sorted(d.items())), us, text or plain(Decimal(q))) for t, m, d, us, q, text in rows)

    def identities(self, tenants: list[str]) -> set[tuple[str, str, str]]:
        """Return the identities of all accepted events."""
        return set(
            self.rows("SELECT tenant, source, id FROM usage_events FINAL WHERE tenant IN %(tenants)s", tenants=tenants)
        )

    def corrected(self, tenants: list[str]) -> dict[tuple[str, str, str], str]:
        """Return which events were taken out, and by what."""
        rows = self.rows(
            "SELECT tenant, target_source, target_id, kind FROM usage_corrections FINAL"
            " WHERE kind IN ('void', 'amend') AND tenant IN %(tenants)s",
            tenants=tenants,
        )
        return {(tenant, source, event): kind for tenant, source, event, kind in rows}

    def digest(self) -> str:
        """Return a hash over every total, every accepted event and every sample of the database."""
        digest = hashlib.sha256()
        for query in (
            "SELECT tenant, meter, toString(dimensions), window_start, sum(quantity) AS q, sum(events) AS n"
            " FROM usage_rollups FINAL GROUP BY ALL HAVING q != 0 OR n != 0 ORDER BY ALL",
            "SELECT tenant, source, id, type, customer, time, data FROM usage_events FINAL ORDER BY ALL",
            "SELECT tenant, meter, toString(dimensions), time, quantity, text, removed FROM usage_samples FINAL"
            " ORDER BY ALL",
            "SELECT tenant, target_source, target_id, kind, source, id FROM usage_corrections FINAL ORDER BY ALL",
        ):
            for row in self.rows(query):
                digest.update(repr(row).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class LiveTotal:
    """A live total as Redis holds it, summed over its parts; `level` and its time only for time-weighted meters."""

    quantity: Decimal
    events: int
    level: Decimal
    at_us: int


def live_totals(url: str, tenants: Iterable[str]) -> dict[tuple[str, str, str], LiveTotal]:
    """Return Redis' live totals by (tenant, meter, period)."""
    found: dict[tuple[str, str, str], LiveTotal] = {}
    wanted = set(tenants)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        keys = []
        for key in client.scan_iter("quota:*", count=10_000):
            _, tenant, meter, period = key.split(":", 3)
            if tenant.strip("{}") in wanted:
                keys.append((key, (tenant.strip("{}"), meter, period)))
        pipeline = client.pipeline(transaction=False)
        for key, _ in keys:
            pipeline.hgetall(key)
        for (_, name), fields in zip(keys, pipeline.execute(), strict=True):
            parts = {kind: [Decimal(v) for k, v in fields.items() if k[0] == kind and ":" in k] for kind in "qnlt"}
            sums = {kind: sum(values, Decimal()) for kind, values in parts.items()}
            found[name] = LiveTotal(sums["q"], int(sums["n"]), sums["l"], int(sums["t"]))
    return found


async def dead_letters(bootstrap: str) -> tuple[dict[tuple[int, int, int], Refused], int]:
    """Return all of `usage.rejected` by (source partition, offset, index), and how many were written twice."""
    found: dict[tuple[int, int, int], Refused] = {}
    count = 0
    async for record in read_all(bootstrap, "usage.rejected"):
        headers = {name: value.decode() for name, value in record.headers}
        partition, offset, index = (int(headers[f"meterbook_{name}"]) for name in ("partition", "offset", "index"))
        count += 1
        found[partition, offset, index] = Refused(
            headers["meterbook_code"], headers["meterbook_reason"], record.key, record.value
        )
    return found, count - len(found)


async def unread(bootstrap: str, stages: Iterable[str]) -> dict[str, int]:
    """Return whether committed records lie after each stage's committed offsets: 0 if there are none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
    )
    try:
        await admin.start()
        await reader.start()
        left = {}
        for stage in stages:
            group, topic = STAGES[stage]
            places = [TopicPartition(topic, number) for number in sorted(await reader._client._wait_on_metadata(topic))]
            try:
                stored = await admin.list_consumer_group_offsets(group)
            except GroupCoordinatorNotAvailableError:
                stored = {}  # the broker makes the topic of offsets when the first group asks
            reader.assign(places)
            ends = await reader.end_offsets(places)
            for place in places:
                reader.seek(place, max(stored[place].offset, 0) if place in stored else 0)
            left[stage] = 0
            for place in places:
                # A marker of a transaction is no record: only reading tells the one from the other.
                while not left[stage] and await reader.position(place) < ends[place]:
                    left[stage] += len((await reader.getmany(place, timeout_ms=100, max_records=1)).get(place, []))
        return left
    finally:
        await reader.stop()
        await admin.close()


async def skip(bootstrap: str, stage: str) -> None:
    """Let a stage that does not run begin at the end of its topic."""
    group, topic = STAGES[stage]
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await reader.start()
    try:
        places = [TopicPartition(topic, number) for number in await reader._client._wait_on_metadata(topic)]
        reader.assign(places)
        await reader.commit(await reader.end_offsets(places))
    finally:
        await reader.stop()


async def members(bootstrap: str, group: str) -> int:
    """Return how many members a consumer group has."""
    return len((await _described(bootstrap, group))[5])


async def is_settled(bootstrap: str, group: str) -> bool:
    """Tell whether a consumer group's members have all joined and been given their partitions."""
    return bool((await _described(bootstrap, group))[2] == "Stable")


async def _described(bootstrap: str, group: str) -> Any:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        [response] = await admin.describe_consumer_groups([group])
        return response.groups[0]
    finally:
        await admin.close()


def now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


def plain(value: Decimal) -> str:
    """Write a number without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
