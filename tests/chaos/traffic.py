"""Usage as producers send it, from a seed: skewed tenants, duplicates, disorder, lateness, arrays, poison, corrections.

Event times are relative to `base`. They keep a wide gap to the moment a window closes (an hour after its end), so that
"late" has one answer whatever the micro-batches are.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from tests.chaos.oracle import Rule

COMPLETION, RUN, STORAGE = "chaos.completion", "chaos.run", "chaos.storage"
ADDITIVE = (
    Rule("chaos_input", COMPLETION, "sum", "input", ("model",)),
    Rule("chaos_output", COMPLETION, "sum", "output", ("model", "region")),
    Rule("chaos_runs", RUN, "count", None, ("kind",)),
)
SAMPLED = (
    Rule("chaos_eu_output", COMPLETION, "sum", "output", (), (("region", "eq", ("eu",)), ("input", "gt", ("500",)))),
    Rule("chaos_latency", COMPLETION, "average", "latency", ("model",)),
    Rule("chaos_users", COMPLETION, "unique", "user", ("region",)),
    Rule("chaos_slowest", COMPLETION, "max", "latency", ("model",)),
    Rule("chaos_fastest", COMPLETION, "min", "latency", ()),
    Rule("chaos_stored_last", STORAGE, "latest", "gb", ("bucket",)),
    Rule("chaos_stored", STORAGE, "time_weighted", "gb", ("bucket",), weight_per="hour"),
)
VOID, AMEND, BACKFILL = "meterbook.usage.void", "meterbook.usage.amend", "meterbook.usage.backfill"


@dataclass(frozen=True)
class Record:
    """A record to produce: the events within, in order, or the code with which all of it must be refused."""

    key: bytes | None
    value: bytes | None
    events: tuple[dict[str, Any], ...] = ()
    refused: str = ""
    is_array: bool = False


@dataclass(frozen=True)
class Mix:
    """Shares of records, from 0 to 1. `late` is the share of events far beyond the allowed lateness."""

    duplicates: float = 0.05
    disorder: float = 0.05
    late: float = 0.0
    arrays: float = 0.05
    unkeyed: float = 0.05
    poison: float = 0.0
    twins: float = 0.0
    corrections: float = 0.0
    hot: float = 0.0
    users: int = 50


class RawNumber(str):
    """A JSON number written with exactly these digits."""

    __slots__ = ()


@dataclass
class Traffic:
    """Makes records for `tenants`, which are met as a Zipf law has it; the first is the `hot` one."""

    seed: int
    tenants: list[str]
    mix: Mix = field(default_factory=Mix)
    base: datetime = field(default_factory=lambda: datetime.now(UTC))
    run: str = ""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._number = 0
        self._recent: deque[dict[str, Any]] = deque(maxlen=500)
        self._correctable: deque[dict[str, Any]] = deque(maxlen=200)
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, len(self.tenants) + 1)))
        self.run = self.run or f"s{self.seed}"

    def records(self, events: int) -> list[Record]:
        """Return records that hold about `events` events."""
        made: list[Record] = []
        count = 0
        while count < events:
            record = self._record()
            made.append(record)
            count += max(1, len(record.events))
        return made

    def event(self, tenant: str, *, at: datetime | None = None, kind: str | None = None) -> dict[str, Any]:
        """Return an event of its own identity."""
        rng = self.rng
        self._number += 1
        kinds, weights = [COMPLETION, RUN, STORAGE], [6, 2, 2]
        kind = kind or rng.choices(kinds, weights)[0]
        if kind == COMPLETION:
            data: dict[str, Any] = {"model": rng.choice(["gpt4", "claude", "größer"]), "input": self._quantity()}
            if rng.random() < 0.8:
                data |= {"output": self._quantity(), "region": rng.choice(["eu", "us"])}
            data |= {"user": f"u{rng.randrange(self.mix.users)}", "latency": self._quantity()}
        elif kind == RUN:
            data = {"kind": rng.choice(["chat", "code"])}
        else:
            data = {"gb": self._quantity(), "bucket": rng.choice("abc")}
        return {
            "specversion": "1.0",
            "id": f"{self.run}-{self._number}",
            "source": f"gateway/{rng.randrange(2)}",
            "type": kind,
            "subject": tenant + rng.choice(["", "/customer-1"]),
            "time": self._write_time(at or self._time()),
            "data": data,
        }

    def single(self, event: dict[str, Any]) -> Record:
        """Return the record of one event, on its tenant's partition."""
        return Record(tenant_of(event).encode(), dumps(event), (event,))

    def _record(self) -> Record:
        rng, mix = self.rng, self.mix
        draw = rng.random()
        for share, make in (
            (mix.poison, self._poison),
            (mix.duplicates, self._again),
            (mix.twins, self._twin),
            (mix.corrections, self._correct),
        ):
            if draw < share:
                record = make()
                if record is not None:
                    return record
                break
            draw -= share
        tenant = self._tenant()
        size = rng.randint(2, 6) if rng.random() < mix.arrays else 1
        events = tuple(self.event(tenant) for _ in range(size))
        unkeyed = rng.random() < mix.unkeyed
        self._recent.extend(events)
        if not unkeyed:
            # An event that has to be sent home first has no certain place before its correction or its twin.
            self._correctable.extend(events)
        key = None if unkeyed else tenant.encode()
        if size == 1:
            return Record(key, dumps(events[0]), events)
        return Record(key, b"[" + b", ".join(map(dumps, events)) + b"]", events, is_array=True)

    def _tenant(self) -> str:
        if self.mix.hot:
            return self.tenants[0] if self.rng.random() < self.mix.hot else self.rng.choice(self.tenants[1:])
        return self.rng.choices(self.tenants, cum_weights=self._weights)[0]

    def _again(self) -> Record | None:
        return self.single(self.rng.choice(self._recent)) if self._recent else None

    def _twin(self) -> Record | None:
        """The same identity with another quantity: refused as a conflict."""
        if not self._correctable:
            return None
        first = self.rng.choice(self._correctable)
        if "data" not in first:
            return None  # an amend
        twin = {**first, "data": dict(first["data"])}
        if first["type"] == RUN:
            twin["data"]["kind"] = f"twin-{self.rng.randrange(10**6)}"
        else:
            twin["data"]["input" if first["type"] == COMPLETION else "gb"] = self.rng.randrange(10**6, 10**7)
        return self.single(twin)

    def _correct(self) -> Record | None:
        if not self._correctable:
            return None
        rng = self.rng
        # Now and then one that stays in the list is corrected again, which is refused.
        number = rng.randrange(len(self._correctable))
        target = self._correctable[number]
        if rng.random() >= 0.1:
            del self._correctable[number]
        tenant = tenant_of(target)
        corrects = {"source": target["source"], "id": target["id"]}
        self._number += 1
        frame = {
            "specversion": "1.0",
            "id": f"{self.run}-{self._number}",
            "source": "console",
            "subject": tenant,
            "time": self._write_time(self.base),
        }
        draw = rng.random()
        if draw < 0.05:
            corrects["id"] = "never-sent"
        if draw < 0.45:
            return self._kept({**frame, "type": VOID, "data": {"corrects": corrects, "reason": "counted by mistake"}})
        if draw < 0.9:
            self._correctable.append(
                {**{name: frame[name] for name in ("source", "id", "subject")}, "type": target["type"]}
            )
            other = self.event(tenant, kind=target["type"])
            data = {"corrects": corrects, "event": {n: other[n] for n in ("type", "time", "data")}, "reason": "wrong"}
            return self._kept({**frame, "type": AMEND, "data": data})
        inner = []
        start = self.base.replace(minute=0, second=0, microsecond=0) - timedelta(hours=rng.randint(30, 60))
        for _ in range(rng.randint(1, 5)):
            event = self.event(tenant, at=start + timedelta(seconds=rng.random() * 3_599))
            inner.append({name: event[name] for name in ("id", "type", "time", "data")})
        data = {
            "start": start.isoformat(),
            "end": (start + timedelta(hours=1)).isoformat(),
            "reason": "agent was down",
            "events": inner,
        }
        return self._kept({**frame, "type": BACKFILL, "data": data})

    def _kept(self, event: dict[str, Any]) -> Record:
        """Return the record of an event that may be sent again."""
        self._recent.append(event)
        return self.single(event)

    def _poison(self) -> Record:
        tenant = self.rng.choice(self.tenants)
        good = self.event(tenant, kind=COMPLETION)
        value, code = self.rng.choice(POISON)(good)
        return Record(tenant.encode(), value, (), code)

    def _quantity(self) -> Any:
        rng = self.rng
        return rng.choice(
            [
                rng.randrange(100_000),
                rng.randrange(1_000),
                f"{rng.randrange(10**6)}.{rng.randrange(10**12):012}",
                RawNumber(f"0.{rng.randrange(1, 1000):03}"),
            ]
        )

    def _time(self) -> datetime:
        rng, draw = self.rng, self.rng.random()
        if draw < self.mix.late:
            return self.base - timedelta(hours=rng.uniform(3, 60))
        if draw < self.mix.late + self.mix.disorder:
            return self.base - timedelta(minutes=rng.uniform(10, 40))
        return self.base - timedelta(seconds=rng.uniform(0, 300))

    def _write_time(self, instant: datetime) -> str:
        zone = self.rng.choice([UTC, UTC, UTC, timezone(timedelta(hours=-5, minutes=-30))])
        text = instant.astimezone(zone).isoformat(timespec="microseconds")
        return text.replace("+00:00", self.rng.choice(["999Z", "Z"]))


def tenant_of(event: dict[str, Any]) -> str:
    """Return the tenant of an event's subject."""
    return str(event["subject"]).partition("/")[0]


def dumps(event: dict[str, Any]) -> bytes:
    """Write an event as JSON; `RawNumber`s stay digit for digit."""
    return json.dumps(_mark(event), ensure_ascii=False).replace('"@@', "").replace('@@"', "").encode()


def _mark(value: Any) -> Any:
    if isinstance(value, RawNumber):
        return f"@@{value}@@"
    if isinstance(value, dict):
        return {name: _mark(part) for name, part in value.items()}
    return [_mark(part) for part in value] if isinstance(value, list | tuple) else value


def _data(good: dict[str, Any], **changes: Any) -> bytes:
    return dumps({**good, "data": {**good["data"], **changes}})


def _raw_input(good: dict[str, Any], text: str) -> bytes:
    return dumps({**good, "data": {"model": "gpt4", "input": "@#@"}}).replace(b'"@#@"', text.encode())


# Bad input of every kind that a topic can bring, with the code of its refusal.
POISON: list[Callable[[dict[str, Any]], tuple[bytes | None, str]]] = [
    lambda good: (None, "tombstone"),
    lambda good: (b"", "empty"),
    lambda good: (b" \n", "empty"),
    lambda good: (b"hello \xff", "not_json"),
    lambda good: (b"\x00\x01\x02", "not_json"),
    lambda good: (dumps(good)[:-3], "not_json"),
    lambda good: (b"\xef\xbb\xbf" + dumps(good), "not_json"),
    lambda good: (dumps(good).decode().encode("utf-16"), "not_json"),
    lambda good: (b"[" * 900, "not_json"),
    lambda good: (b'{"a":' * 1_000 + b"1" + b"}" * 1_000, "not_json"),
    lambda good: (b"17", "not_an_object"),
    lambda good: (b'"text"', "not_an_object"),
    lambda good: (dumps({**good, "specversion": "0.3"}), "unsupported_specversion"),
    lambda good: (dumps({name: value for name, value in good.items() if name != "id"}), "missing_field"),
    lambda good: (dumps({**good, "id": ""}), "invalid_field"),
    lambda good: (dumps({**good, "id": "x" * 4_096}), "invalid_field"),
    lambda good: (dumps({**good, "id": "a\r\nb"}), "invalid_field"),
    lambda good: (dumps({**good, "id": "a\0b"}), "invalid_field"),
    lambda good: (dumps({**good, "id": 7}), "invalid_field"),
    lambda good: (dumps({**good, "data": []}), "invalid_field"),
    lambda good: (dumps({**good, "subject": "nobody-at-all"}), "unknown_tenant"),
    lambda good: (dumps({**good, "subject": "'; DROP TABLE tenants; --"}), "unknown_tenant"),
    lambda good: (dumps({**good, "type": "coffee"}), "unknown_meter"),
    lambda good: (dumps({**good, "type": "{{7*7}}<script>"}), "unknown_meter"),
    lambda good: (dumps({**good, "time": "2026-01-01T00:00:00"}), "time_without_zone"),
    lambda good: (dumps({**good, "time": "0001-01-01T00:00:00Z"}), "time_out_of_bounds"),
    lambda good: (dumps({**good, "time": "2005-01-01T00:00:00Z"}), "too_old"),
    lambda good: (dumps({**good, "time": "2098-01-01T00:00:00Z"}), "future_time"),
    lambda good: (dumps({**good, "time": "2026-02-29T00:00:00Z"}), "invalid_time"),
    lambda good: (dumps({**good, "time": "yesterday"}), "invalid_time"),
    lambda good: (_data(good, input=-1), "negative_quantity"),
    lambda good: (_data(good, input="many"), "invalid_quantity"),
    lambda good: (_data(good, input="1,5"), "invalid_quantity"),
    lambda good: (_data(good, input=True), "invalid_quantity"),
    lambda good: (_data(good, input=2**63), "quantity_out_of_range"),
    lambda good: (_raw_input(good, "1e400"), "quantity_out_of_range"),
    lambda good: (_raw_input(good, "1e-30"), "too_many_digits"),
    lambda good: (_raw_input(good, "NaN"), "not_json"),
    lambda good: (_raw_input(good, "Infinity"), "not_json"),
    lambda good: (_data(good, model={"$gt": ""}), "invalid_dimension"),
    lambda good: (_data(good, model="x" * 300), "invalid_dimension"),
    lambda good: (dumps({**good, "type": STORAGE, "data": {"bucket": "a"}}), "missing_quantity"),
    lambda good: (_data(good, note="x" * 70_000), "too_large"),
]
