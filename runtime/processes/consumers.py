"""Runs billing consumers as a process: `meterbook worker invoicing payments ...`, one task each, until a signal."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client import start_http_server

from core.clock import SystemClock
from runtime.outbox import OutboxRelay
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import create_producer

Runner = Callable[[Settings, asyncio.Event], Awaitable[None]]
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
    collect_seldom()
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


def collect_seldom() -> None:
    """Have the garbage collector leave alone what is loaded, and look for cycles less often.

    Looking through all that a batch of invoices is made of, again and again, took a fifth of their time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _named(name: str, runner: Runner, settings: Settings, stop: asyncio.Event) -> None:
    structlog.contextvars.bind_contextvars(consumer=name)
    log.info("consumer.starting")
    try:
        await runner(settings, stop)
    except Exception:
        log.exception("consumer.failed")
        raise
    log.info("consumer.stopped")
