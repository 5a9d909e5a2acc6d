"""How much usage the HTTP API takes in: `python -m benchmarks.api_ingest`. Loopback, a real broker, about a minute.

The API is the product's own process (`meterbook api`), bound to one core; requests come over kept-alive connections
from this process, which does nothing else than write prepared bytes and count answers. Every answer must be 202, which
the API says only after the broker has confirmed. `CPU us` is the API's own processor time per event, which other work
on the machine disturbs less than the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import engines
from benchmarks.workload import generate

_TICKS = os.sysconf("SC_CLK_TCK")
_STARTED_IN_SECONDS = 60.0
_EVENTS = 20_000


class ApiFailedError(Exception):
    """The API did not start, or answered something else than 202."""


@dataclass(frozen=True, slots=True)
class Result:
    """One path's figures: requests/s (median, slowest, fastest round), events/s, processor microseconds per event."""

    path: str
    requests_per_s: float
    slowest: float
    fastest: float
    events_per_s: float
    cpu_us: float
    target: str


def main() -> None:
    """Start a broker and the API in a temporary folder, print both rates, end everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meterbook-bench-") as folder:
        home = Path(folder)
        try:
            broker = engines.start(home, "api", _say)
            with _serve(broker, home) as (port, pid):
                results = _measure(port, pid, options)
        finally:
            engines.stop(home, "api")
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    for one in results:
        print(
            f"{one.path:22} {one.requests_per_s:10,.0f} requests/s ({one.slowest:,.0f} to {one.fastest:,.0f})"
            f" {one.events_per_s:10,.0f} events/s {one.cpu_us:8.1f} CPU us/event   target {one.target}"
        )


def _measure(port: int, pid: int, options: argparse.Namespace) -> list[Result]:
    # Written just before they are sent: the API refuses events that are too old or lie ahead.
    workload = generate(_EVENTS, seed=1, until=datetime.now(UTC))
    singles = [_request(port, "/api/v1/usage", "application/cloudevents+json", body) for body in workload.bodies]
    batches = [
        _request(port, "/api/v1/usage/batch", "application/cloudevents-batch+json", body)
        for _, body in workload.batches()
        if body.count(b'"specversion"') == 100
    ]
    found: dict[str, list[tuple[float, float]]] = {"single": [], "batches of 100": []}
    for number in range(options.rounds + 1):
        for name, requests, connections in (
            ("single", singles, options.connections),
            ("batches of 100", batches, max(1, options.connections // 8)),
        ):
            cpu = _cpu_seconds(pid)
            seconds = options.seconds if number else 1.0
            answered, took = uvloop.run(_load(port, requests, connections, seconds))
            cpu = _cpu_seconds(pid) - cpu
            _say(f"round {number}: {name}: {answered / took:,.0f} requests/s, processor {cpu / took:.0%}")
            if number:  # the first round warms up
                found[name].append((answered / took, cpu / answered))
    return [
        _summary("POST /usage", found["single"], 1, "> 1,500 requests/s"),
        _summary("POST /usage/batch", found["batches of 100"], 100, "> 50,000 events/s"),
    ]


def _summary(path: str, runs: list[tuple[float, float]], events: int, target: str) -> Result:
    rates = [rate for rate, _ in runs]
    median = statistics.median(rates)
    cpu_us = statistics.median(cpu for _, cpu in runs) / events * 1_000_000
    return Result(path, median, min(rates), max(rates), median * events, cpu_us, target)


def _request(port: int, path: str, media: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


async def _load(port: int, requests: list[bytes], connections: int, seconds: float) -> tuple[int, float]:
    """Keep `connections` requests under way for `seconds`; returns how many were answered 202, and the time."""
    loop = asyncio.get_running_loop()
    state = _Load(cycle(requests), loop.create_future(), connections)
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(state), "127.0.0.1", port)
    began = time.perf_counter()
    state.until = began + seconds
    for connection in state.open:
        connection.send()
    await state.done
    return state.answered, time.perf_counter() - began


class _Load:
    def __init__(self, requests: cycle[bytes], done: asyncio.Future[None], connections: int) -> None:
        self.requests, self.done, self.busy = requests, done, connections
        self.until = 0.0
        self.answered = 0
        self.open: list[_Connection] = []


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load, self._seen = load, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport  # uvloop's is no asyncio.Transport
        self._load.open.append(self)

    def send(self) -> None:
        self._transport.write(next(self._load.requests))

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, blank, body = self._seen.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        load = self._load
        if not head.startswith(b"HTTP/1.1 202"):
            if not load.done.done():
                load.done.set_exception(ApiFailedError(f"{head.splitlines()[0]!r}: {body[:500]!r}"))
            return
        self._seen = b""
        load.answered += 1
        if time.perf_counter() < load.until:
            self.send()
            return
        self._transport.close()
        load.busy -= 1
        if load.busy == 0 and not load.done.done():
            load.done.set_result(None)


@contextmanager
def _serve(broker: engines.Broker, home: Path) -> Iterator[tuple[int, int]]:
    """Run the API on one core of its own, this process on the others; yields its port and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = broker.environment() | {
        "METERBOOK_API_PORT": str(port),
        # Not looked at by this path; requests to them would fail, loudly.
        "METERBOOK_REDIS_URL": "redis://127.0.0.1:1",
        "METERBOOK_CLICKHOUSE_URL": "http://127.0.0.1:1/meterbook",
    }
    command = [str(Path(sysconfig.get_path("scripts")) / "meterbook"), "api"]
    cores = sorted(os.sched_getaffinity(0))
    with (home / "api.log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        os.sched_setaffinity(process.pid, {cores[0]})
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores[1:]))
        try:
            _wait(port, process, Path(log.name))
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _STARTED_IN_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            body = opener.open(f"http://127.0.0.1:{port}/ready", timeout=5).read()
        except urllib.error.HTTPError as error:
            body = error.read()
        except OSError:
            body = b"{}"
        if json.loads(body).get("checks", {}).get("kafka") == "up":
            return
        time.sleep(0.05)
    raise ApiFailedError(f"the API did not start:\n{log.read_text()[-2_000:]}")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
