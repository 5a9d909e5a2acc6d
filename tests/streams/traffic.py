"""Usage as producers send it, from a seed: duplicates, twins, disorder, arrays, poison, keyed and unkeyed records."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.streams.oracle import MeterRule

COMPLETION, RUN = "story.completion", "story.run"
RULES = (
    MeterRule("story_tokens_in", COMPLETION, "input", ("model",)),
    MeterRule("story_tokens_out", COMPLETION, "output", ("model", "region")),
    MeterRule("story_runs", RUN, None, ("kind",)),
)


@dataclass(frozen=True)
class Record:
    """A record to produce: the events within, in order, or the code with which it must be refused."""

    key: bytes | None
    value: bytes | None
    events: tuple[dict[str, Any], ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Sent:
    """A record and its place on `usage.events`."""

    record: Record
    partition: int
    offset: int


class Traffic:
    """Makes records. `unkeyed` is the share of records without a key, which land on any partition."""

    def __init__(self, seed: int, tenants: list[str], *, duplicates: float, poison: float, unkeyed: float) -> None:
        self.rng = random.Random(seed)
        self.tenants = tenants
        self._duplicates, self._poison, self._unkeyed = duplicates, poison, unkeyed
        self._numbers = dict.fromkeys(tenants, 0)
        self._recent: list[dict[str, Any]] = []
        self._run = f"run{seed}"

    def records(self, count: int) -> list[Record]:
        """Return `count` records."""
        return [self._record() for _ in range(count)]

    def event(self, tenant: str) -> dict[str, Any]:
        """Return an event of its own identity."""
        rng = self.rng
        self._numbers[tenant] += 1
        kind = rng.choices([COMPLETION, RUN], [4, 1])[0]
        if kind == COMPLETION:
            data: dict[str, Any] = {"model": rng.choice(["gpt4", "claude", "größer"]), "input": self._quantity()}
            if rng.random() < 0.8:
                data |= {"output": self._quantity(), "region": rng.choice(["eu", "us"])}
        else:
            data = {"kind": rng.choice(["chat", "code"])}
        return {
            "specversion": "1.0",
            "id": f"{self._run}-{self._numbers[tenant]}",
            "source": f"gateway/{rng.randrange(2)}",
            "type": kind,
            "subject": tenant + rng.choice(["", "/customer-1"]),
            "time": self._time(),
            "data": data,
        }

    def _record(self) -> Record:
        rng = self.rng
        if rng.random() < self._poison:
            value, code = self._poison_pill()
            keys = [b"\xff\x00", self.tenants[0].encode(), *([None] if value is not None else [])]
            return Record(rng.choice(keys), value, (), code)
        tenant = rng.choice(self.tenants)
        if self._recent and rng.random() < self._duplicates:
            event = rng.choice(self._recent)
            tenant = event["subject"].split("/")[0]
            events = [event]
        else:
            events = [self.event(tenant) for _ in range(rng.randint(2, 6) if rng.random() < 0.05 else 1)]
            self._recent = [*self._recent[-500:], *events]
        key = None if rng.random() < self._unkeyed else tenant.encode()
        value = dumps(events[0]) if len(events) == 1 else b"[" + b", ".join(map(dumps, events)) + b"]"
        return Record(key, value, tuple(events))

    def _quantity(self) -> Any:
        rng = self.rng
        return rng.choice(
            [
                rng.randrange(100_000),
                rng.randrange(10_000),
                f"{rng.randrange(10**6)}.{rng.randrange(10**12):012}",
                RawNumber(f"0.{rng.randrange(1, 1000):03}"),
            ]
        )

    def _time(self) -> str:
        rng = self.rng
        instant = datetime.now(UTC) - timedelta(seconds=rng.random() * 5400)
        zone = rng.choice([UTC, UTC, UTC, timezone(timedelta(hours=-5, minutes=-30))])
        text = instant.astimezone(zone).isoformat(timespec="microseconds")
        return text.replace("+00:00", rng.choice(["999Z", "Z"]))

    def _poison_pill(self) -> tuple[bytes | None, str]:
        tenant = self.rng.choice(self.tenants)
        good = self.event(tenant)
        self._numbers[tenant] += 1
        return self.rng.choice(
            [
                (None, "tombstone"),
                (b"", "empty"),
                (b"\x00\x01\x02", "not_json"),
                (dumps(good)[:-3], "not_json"),
                (dumps({**good, "subject": "nobody-at-all"}), "unknown_tenant"),
                (dumps({**good, "type": "coffee"}), "unknown_meter"),
                (dumps({**good, "time": "2026-01-01T00:00:00"}), "time_without_zone"),
                (dumps({**good, "type": COMPLETION, "data": {"input": -1}}), "negative_quantity"),
            ]
        )


class RawNumber(str):
    """A JSON number written with exactly these digits."""

    __slots__ = ()


def dumps(event: dict[str, Any]) -> bytes:
    """Write an event as JSON; `RawNumber`s stay digit for digit."""
    marked = {
        **event,
        "data": {
            name: f"@@{value}@@" if isinstance(value, RawNumber) else value for name, value in event["data"].items()
        },
    }
    return json.dumps(marked, ensure_ascii=False).replace('"@@', "").replace('@@"', "").encode()


async def produce(bootstrap: str, records: Iterable[Record], *, compression: str | None = None) -> list[Sent]:
    """Send records to `usage.events` in order, each to where its key leads; returns where they are."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        compression_type=compression,
        linger_ms=2,
        max_request_size=200_000_000,
    )
    await producer.start()
    try:
        waiting = [
            (record, await producer.send("usage.events", value=record.value, key=record.key)) for record in records
        ]
        return [Sent(record, (place := await confirmed).partition, place.offset) for record, confirmed in waiting]
    finally:
        await producer.stop()
