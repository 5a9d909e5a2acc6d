"""The usage that every contender reads. Owns the events' form, and what counting them exactly must give.

The expected totals come from the integers the events are written from, by code that shares nothing with the product's
parser: a slip there shows as a difference here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

TENANTS = tuple(f"tenant-{number:03}" for number in range(50))
BATCH_EVENTS = 100
# Half an hour of usage as a backlog: with 50 tenants and ~50 dimension values this makes about 80,000 minute windows
# of 6 events, so that neither a single hot window nor one window per event flatters anybody.
SPAN = timedelta(minutes=30)
DUPLICATE_SHARE = 0.01
_DUPLICATE_DISTANCE_MAX = 2_000
_DISORDER_SECONDS = 3.0
_ENDPOINTS = tuple(f"/v1/{name}" for name in ("chat", "embed", "files", "search", "agents", "tools", "users", "jobs"))
_METHODS = ("GET", "POST", "PUT", "DELETE")
_AGENT_TYPES = ("researcher", "coder", "analyst", "reviewer", "planner")
_MODELS = ("gpt4", "gpt35", "claude")
_SCALED = 10**12

# (tenant, meter, dimension values, minute start in seconds since 1970) -> [quantity x 10^12, events]
Windows = dict[tuple[str, str, tuple[str, ...], int], list[int]]


@dataclass(slots=True)
class Workload:
    """Events in the order they are produced, each with its tenant; duplicates are the same bytes again."""

    tenants: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    expected: Windows = field(default_factory=dict)
    duplicates: int = 0

    @property
    def distinct(self) -> int:
        """How many events must be counted."""
        return len(self.bodies) - self.duplicates

    @property
    def mean_bytes(self) -> float:
        """Size of an event's JSON on average."""
        return sum(map(len, self.bodies)) / len(self.bodies)

    def singles(self) -> Iterator[tuple[str, bytes]]:
        """Yield (tenant, message) with one event per message."""
        return zip(self.tenants, self.bodies, strict=True)

    def batches(self) -> Iterator[tuple[str, bytes]]:
        """Yield (tenant, message) with up to 100 events of one tenant per message, as the SDK sends them."""
        waiting: dict[str, list[bytes]] = {tenant: [] for tenant in TENANTS}
        for tenant, body in self.singles():
            queue = waiting[tenant]
            queue.append(body)
            if len(queue) == BATCH_EVENTS:
                yield tenant, b"[" + b",".join(queue) + b"]"
                queue.clear()
        for tenant, queue in waiting.items():
            if queue:
                yield tenant, b"[" + b",".join(queue) + b"]"


def generate(events: int, *, seed: int, until: datetime) -> Workload:
    """Return `events` events within `SPAN` before `until` (aware), the same for the same arguments."""
    rng = random.Random(seed)
    made = Workload()
    began = until - SPAN
    step = (SPAN.total_seconds() - 2 * _DISORDER_SECONDS) / events
    kinds = rng.choices((_api_request, _agent_execution, _cpu, _llm), weights=(70, 15, 10, 5), k=events)
    for number, kind in enumerate(kinds):
        if made.bodies and rng.random() < DUPLICATE_SHARE:
            index = len(made.bodies) - rng.randint(1, min(_DUPLICATE_DISTANCE_MAX, len(made.bodies)))
            made.tenants.append(made.tenants[index])
            made.bodies.append(made.bodies[index])
            made.duplicates += 1
            continue
        tenant = TENANTS[int(rng.random() * len(TENANTS))]
        at = began + timedelta(seconds=number * step + rng.random() * _DISORDER_SECONDS)
        event_type, data, measures = kind(rng)
        made.tenants.append(tenant)
        made.bodies.append(_body(rng, event_type, tenant, at, data))
        minute = int(at.timestamp()) // 60 * 60
        for meter, dimensions, quantity in measures:
            cell = made.expected.setdefault((tenant, meter, dimensions, minute), [0, 0])
            cell[0] += quantity
            cell[1] += 1
    return made


def _body(rng: random.Random, event_type: str, tenant: str, at: datetime, data: str) -> bytes:
    time = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"
    return (
        f'{{"specversion":"1.0","id":"{rng.getrandbits(128):032x}","source":"/gateway/{rng.getrandbits(3)}",'
        f'"type":"{event_type}","subject":"{tenant}","time":"{time}","datacontenttype":"application/json",'
        f'"data":{data}}}'
    ).encode()


Made = tuple[str, str, list[tuple[str, tuple[str, ...], int]]]


def _api_request(rng: random.Random) -> Made:
    endpoint, method = _ENDPOINTS[rng.getrandbits(3)], _METHODS[rng.getrandbits(2)]
    requests = 1 + rng.getrandbits(5)
    data = f'{{"requests":{requests},"endpoint":"{endpoint}","method":"{method}","status":200}}'
    return "api.request", data, [("api_requests", (endpoint, method), requests * _SCALED)]


def _agent_execution(rng: random.Random) -> Made:
    agent_type = rng.choice(_AGENT_TYPES)
    data = f'{{"agent_type":"{agent_type}","duration_ms":{rng.getrandbits(14)}}}'
    return "agent.execution", data, [("agent_executions", (agent_type,), _SCALED)]


def _cpu(rng: random.Random) -> Made:
    ten_thousandths = 1 + rng.getrandbits(13)
    vcpu_hours = f"{ten_thousandths // 10_000}.{ten_thousandths % 10_000:04}"
    data = f'{{"vcpu_hours":"{vcpu_hours}","host":"node-{rng.getrandbits(6)}"}}'
    return "compute.cpu", data, [("cpu", (), ten_thousandths * (_SCALED // 10_000))]


def _llm(rng: random.Random) -> Made:
    model, tokens_in, tokens_out = rng.choice(_MODELS), 1 + rng.getrandbits(12), 1 + rng.getrandbits(10)
    data = f'{{"input_tokens":{tokens_in},"output_tokens":{tokens_out},"model":"{model}"}}'
    measures: list[tuple[str, tuple[str, ...], int]] = [
        ("llm_input_tokens", (model,), tokens_in * _SCALED),
        ("llm_output_tokens", (model,), tokens_out * _SCALED),
    ]
    return "llm.completion", data, measures
