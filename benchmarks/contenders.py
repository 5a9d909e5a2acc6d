"""Runs one contender once, as a process of its own. Owns when each clock starts and stops.

The meter worker is the product's own `meterbook worker meter`. Its clock starts when it begins to take over its first
partition, before it has fetched anything (its log's time of `partition.taken_over` less the seconds that line names),
and stops when the broker shows its group's committed offsets at the end of every partition: offsets are committed by
the same transaction as the journal, so that is its last commit. The offsets are asked for every 20 ms, which can only
make the worker look slower. The rivals keep their own clocks, from their first fetch or event to their last.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from aiokafka.admin import AIOKafkaAdminClient

from benchmarks import engines
from core.topics import USAGE_EVENTS

LIMIT_SECONDS = 120.0
_RIVALS = Path(__file__).resolve().parent / "rivals"
RIVALS_PYTHON = _RIVALS.parent.parent / ".venv-rivals" / "bin" / "python"
_POLL_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


class ContenderFailedError(Exception):
    """A contender ended early, took too long or said nothing; the text ends with its log."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run: events read, seconds by the clock, and seconds of processor time its process used meanwhile."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


def run_rival(module: str, *arguments: str) -> Measurement:
    """Run a rival's module to its end and read the JSON line it prints."""
    return _run(module, [sys.executable, "-m", module, *arguments])


def run_foreign_rival(script: str, *arguments: str) -> Measurement:
    """Run a script of `benchmarks/rivals` in the rivals' own environment."""
    if not RIVALS_PYTHON.exists():
        raise ContenderFailedError(f"{RIVALS_PYTHON} is missing: `make bench` installs the rivals")
    return _run(script, [str(RIVALS_PYTHON), str(_RIVALS / f"{script}.py"), *arguments])


def _run(module: str, command: list[str]) -> Measurement:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ContenderFailedError(f"{module} was not done after {LIMIT_SECONDS:.0f} s") from error
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode != 0 or not lines:
        raise ContenderFailedError(f"{module} ended with {ended.returncode}:\n{ended.stderr[-2_000:]}")
    return Measurement(**json.loads(lines[-1]))


def run_meter_worker(broker: engines.Broker, events: int) -> Measurement:
    """Let a fresh meter worker count everything on the broker, then end it in order; `events` is how many there are."""
    command = [str(Path(sysconfig.get_path("scripts")) / "meterbook"), "worker", "meter"]
    with tempfile.NamedTemporaryFile(mode="w+", suffix=".log") as log:
        worker = subprocess.Popen(command, env=broker.environment(), stdout=log, stderr=log)
        try:
            return asyncio.run(_watch(broker, worker, log, events))
        finally:
            worker.terminate()
            try:
                worker.wait(timeout=20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


async def _watch(broker: engines.Broker, worker: subprocess.Popen[bytes], log: IO[str], events: int) -> Measurement:
    ends = await engines.end_offsets(broker.bootstrap, USAGE_EVENTS.name)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        began, cpu_began = 0.0, 0.0
        while time.monotonic() < deadline:
            if worker.poll() is not None:
                raise ContenderFailedError(f"the meter worker ended with {worker.returncode}:\n{_tail(log)}")
            if not began:
                began = _take_over_began(log)
                cpu_began = _cpu_seconds(worker.pid) if began else 0.0
            elif await _committed(admin, broker) == ends:
                return Measurement(events, time.time() - began, _cpu_seconds(worker.pid) - cpu_began)
            await asyncio.sleep(_POLL_SECONDS)
        raise ContenderFailedError(f"the meter worker was not done after {LIMIT_SECONDS:.0f} s:\n{_tail(log)}")
    finally:
        await admin.close()


async def _committed(admin: AIOKafkaAdminClient, broker: engines.Broker) -> dict[int, int]:
    from streams.agents.meter import GROUP

    offsets = await admin.list_consumer_group_offsets(GROUP)
    return {place.partition: found.offset for place, found in offsets.items() if place.topic == USAGE_EVENTS.name}


def _take_over_began(log: IO[str]) -> float:
    """Return when the worker began to take over its first partition (seconds since 1970), 0 while it has not."""
    found = [line for line in map(_parse, Path(log.name).read_text().splitlines()) if line]
    return min(
        (
            datetime.fromisoformat(line["timestamp"]).timestamp() - line["seconds"]
            for line in found
            if line.get("event") == "partition.taken_over"
        ),
        default=0.0,
    )


def _parse(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _cpu_seconds(pid: int) -> float:
    """Return user and system time of a process; fields 14 and 15 of proc(5)'s stat."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return float("nan")  # not Linux, or it ended: the figure is an extra, the run stands without
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _tail(log: IO[str]) -> str:
    return Path(log.name).read_text()[-2_000:]
