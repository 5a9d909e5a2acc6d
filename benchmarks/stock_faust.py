"""Stock Faust as its documentation shows it: an agent over one Record per message, adding up in a Table in memory.

`windowed` makes the rollups the meter worker makes: quantity per tenant, meter and dimension values, in tumbling
windows of one minute of event time. `counter` is the least a table agent can do: events per tenant and type, no
windows. Both do less than the meter worker: no dedupe, no validation, floats for quantities, one meter per event, at
least once.

Run as a process by the benchmark: `python -m benchmarks.stock_faust BOOTSTRAP EVENTS windowed|counter NAME`; prints
one JSON line. The clock runs from the first event in the agent to the last.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import datetime
from typing import Any

import faust

from benchmarks.engines import PARTITIONS
from core.topics import USAGE_EVENTS

# Event type -> the property that is summed (None: each event is 1) and the properties it is split by.
_METERS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "api.request": ("requests", ("endpoint", "method")),
    "agent.execution": (None, ("agent_type",)),
    "compute.cpu": ("vcpu_hours", ()),
    "llm.completion": ("input_tokens", ("model",)),
}


class Usage(faust.Record, serializer="json"):  # type: ignore[call-arg,misc]
    """A usage event as a Faust model."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: dict[str, Any]


class TimedUsage(faust.Record, serializer="json", coerce=True):  # type: ignore[call-arg,misc]
    """A usage event whose time Faust reads, which its windows by event time need."""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: dict[str, Any]


def create_app(bootstrap: str, events_wanted: int, kind: str, name: str) -> faust.App:
    """Return the app; its process ends after `events_wanted` events."""
    app = faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=tempfile.mkdtemp(prefix="stock-faust-"),
        web_enabled=False,
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
    )
    model = TimedUsage if kind == "windowed" else Usage
    usage = app.topic(USAGE_EVENTS.name, key_type=str, value_type=model, partitions=PARTITIONS)
    table = app.Table("totals", default=float, partitions=PARTITIONS)
    totals: Any = table.tumbling(60.0).relative_to_field(TimedUsage.time) if kind == "windowed" else table
    add = _add_to_window if kind == "windowed" else _count
    stopwatch = Stopwatch(events_wanted)

    @app.agent(usage)  # type: ignore[untyped-decorator]
    async def roll_up(stream: Any) -> None:
        async for event in stream:
            stopwatch.see()
            add(totals, event)

    return app


def _add_to_window(totals: Any, event: TimedUsage) -> None:
    value_property, dimensions = _METERS[event.type]
    data = event.data
    quantity = 1.0 if value_property is None else float(data[value_property])
    totals[f"{event.subject}|{event.type}|{'|'.join([data[name] for name in dimensions])}"] += quantity


def _count(totals: Any, event: Usage) -> None:
    totals[f"{event.subject}|{event.type}"] += 1


class Stopwatch:
    """Counts events; tells the time between the first and the last, and ends the process."""

    def __init__(self, events_wanted: int) -> None:
        self._wanted, self._events = events_wanted, 0
        self._began = self._cpu_began = 0.0

    def see(self) -> None:
        """Note one event, before it is handled."""
        if not self._events:
            self._began, self._cpu_began = time.time(), time.process_time()
        self._events += 1
        if self._events > self._wanted:
            cpu = time.process_time() - self._cpu_began
            result = {"events": self._wanted, "seconds": time.time() - self._began, "cpu_seconds": cpu}
            # Faust's worker turns sys.stdout into log lines.
            print(json.dumps(result), file=sys.__stdout__, flush=True)
            # Nothing of this process is needed any more, and its orderly end takes seconds.
            os._exit(0)


def main() -> None:
    """Run the worker as the arguments say."""
    bootstrap, events_wanted, kind, name = sys.argv[1:]
    worker = faust.Worker(create_app(bootstrap, int(events_wanted), kind, name), loglevel="ERROR", quiet=True)
    worker.spinner = None
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
