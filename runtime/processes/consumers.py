"""Runs billing consumers as a process: `meterbook worker invoicing payments ...`, one task each, until a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client import start_http_server

from core.clock import SystemClock
from runtime.garbage import collect_seldom
from runtime.outbox import OutboxRelay
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import create_producer

Runner = Callable[[Settings, asyncio.Event], Awaitable[None]]
# The collector's thresholds: a batch of invoices is some ten thousand objects.
BATCHES = (50_000, 20, 100)
log = structlog.get_logger()


async def run_outbox(settings: Settings, stop: asyncio.Event) -> None:
    """Publish the outbox until `stop` is set."""
    producer = create_producer(settings)
    async with create_pool(settings, max_size=2) as pool:
        await producer.start()
        try:
            await OutboxRelay(pool, producer, SystemClock()).run(stop)
        finally:
            await producer.stop()


async def run_consumers(settings: Settings, runners: Sequence[tuple[str, Runner]]) -> None:
    """Run all until SIGTERM or SIGINT; if one fails, the others stop and its error is raised."""
    collect_seldom(*BATCHES)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, addr=settings.metrics_host)
    tasks = [asyncio.create_task(_named(name, runner, settings, stop), name=name) for name, runner in runners]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    stop.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _named(name: str, runner: Runner, settings: Settings, stop: asyncio.Event) -> None:
    structlog.contextvars.bind_contextvars(consumer=name)
    log.info("consumer.starting")
    try:
        await runner(settings, stop)
    except Exception:
        log.exception("consumer.failed")
        raise
    log.info("consumer.stopped")
