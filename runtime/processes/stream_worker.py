"""Runs a Faust app as a worker process: `meterbook worker meter | quota | warehouse`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

import faust
import structlog
from prometheus_client import start_http_server

from runtime.kafka_topics import KafkaAwayError, check_topics
from runtime.patience import until_done
from runtime.settings import Settings


class _Worker(faust.Worker):  # type: ignore[misc]
    def _setup_logging(self) -> None:
        """Leave logging alone: Faust would replace the handlers that are already set."""


def run_stream_worker(create_app: Callable[[Settings], faust.App], settings: Settings, name: str) -> NoReturn:
    """Run the app until SIGTERM or SIGINT; never returns (Faust's worker ends the process with its exit code)."""
    # An operator starts everything at once, and Kafka takes its time; what is missing in it is refused at once.
    cluster = asyncio.run(until_done("kafka", lambda: check_topics(settings), transient=(KafkaAwayError,)))
    # What is kept of one cluster's journal means nothing beside another's.
    settings = settings.model_copy(update={"state_dir": settings.state / cluster})
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, addr=settings.metrics_host)
    structlog.get_logger().info("worker.starting", worker=name)
    worker = _Worker(create_app(settings), quiet=True, redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()
    raise SystemExit(0)
