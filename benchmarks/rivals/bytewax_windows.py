"""Bytewax: decode, then a tumbling window of one minute of event time per tenant, type and dimensions.

It does less than the meter worker: no dedupe, no validation, floats, no recovery store, at least once.

`python bytewax_windows.py BOOTSTRAP TOPIC MESSAGES`; the clock runs from the first event to the last.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

METERS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "api.request": ("requests", ("endpoint", "method")),
    "agent.execution": (None, ("agent_type",)),
    "compute.cpu": ("vcpu_hours", ()),
    "llm.completion": ("input_tokens", ("model",)),
}


class Stopwatch:
    """Counts events as they are decoded, batch by batch between the windows; ends the process after the last."""

    def __init__(self, wanted: int) -> None:
        self._wanted, self._seen, self._began, self._cpu_began = wanted, 0, 0.0, 0.0

    def see(self) -> None:
        """Note one event."""
        if not self._seen:
            self._began, self._cpu_began = time.time(), time.process_time()
        self._seen += 1
        if self._seen > self._wanted:
            seconds, cpu = time.time() - self._began, time.process_time() - self._cpu_began
            print(json.dumps({"events": self._wanted, "seconds": seconds, "cpu_seconds": cpu}), flush=True)
            os._exit(0)


def main() -> None:
    """Measure as the arguments say."""
    bootstrap, topic, messages = sys.argv[1:]
    stopwatch = Stopwatch(int(messages))

    def keyed(message: Any) -> tuple[str, tuple[datetime, float]]:
        stopwatch.see()
        value = orjson.loads(message.value)
        value_property, dimensions = METERS[value["type"]]
        data = value["data"]
        quantity = 1.0 if value_property is None else float(data[value_property])
        key = f"{value['subject']}|{value['type']}|{'|'.join([data[name] for name in dimensions])}"
        return key, (datetime.fromisoformat(value["time"]), quantity)

    def add(total: float, value: tuple[datetime, float]) -> float:
        return total + value[1]

    flow = Dataflow("rollups")
    source = KafkaSource([bootstrap], [topic], tail=True, batch_size=5_000)
    events = op.map("decode", op.input("usage", flow, source), keyed)
    # Partitions are read one after another, so one is half an hour ahead of the next: nothing may count as late.
    clock = win.EventClock(lambda value: value[0], wait_for_system_duration=timedelta(hours=1))
    windower = win.TumblingWindower(length=timedelta(minutes=1), align_to=datetime(2020, 1, 1, tzinfo=UTC))
    windows = win.fold_window("windows", events, clock, windower, float, add, lambda a, b: a + b, ordered=False)
    op.inspect("totals", windows.down, lambda *_: None)
    run_main(flow)


if __name__ == "__main__":
    main()
