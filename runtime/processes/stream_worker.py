"""Runs a Faust app as a worker process: `meterbook worker meter | quota | warehouse`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

import faust
import structlog
from prometheus_client import start_http_server

from runtime.settings import Settings


def run_stream_worker(create_app: Callable[[Settings], faust.App], settings: Settings, name: str) -> NoReturn:
    """Run the app until SIGTERM or SIGINT; never returns (Faust's worker ends the process with its exit code)."""
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, addr="127.0.0.1")
    app = create_app(settings)

    @app.on_worker_init.connect  # type: ignore[untyped-decorator]
    def announce(app: Any, **kwargs: Any) -> None:
        structlog.get_logger().info("worker.starting", worker=name)

    worker = faust.Worker(app, loglevel=logging.WARNING, quiet=True, redirect_stdouts=False, logging_config=_KEEP_LOGS)
    worker.execute_from_commandline()
    raise SystemExit(0)


# Faust would replace the root logger's handlers; ours are already set.
_KEEP_LOGS: dict[str, Any] = {"version": 1, "disable_existing_loggers": False, "incremental": True}
