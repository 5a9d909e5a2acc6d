"""Logs: one JSON line per event on standard error (or readable lines), for our code and for the libraries alike."""

from __future__ import annotations

import logging
import sys

import structlog

from runtime.settings import Settings

_NOISY = ("aiokafka", "faust", "mode", "httpx2", "httpcore2", "stripe", "weasyprint", "fontTools", "psycopg.pool")


def configure_logs(settings: Settings, process: str) -> None:
    """Send all logs to standard error; `process` stands on every line."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        # Not a context variable: threads of libraries have contexts of their own.
        lambda logger, name, event: {**event, "process": process},
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_news)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _is_news(record: logging.LogRecord) -> bool:
    # Kafka 4 answers the first produce of a transaction so now and then, and aiokafka tries again: many lines a second
    # that tell nothing. Where replicas are really missing, nothing is committed, and the lag's alert tells.
    return not (record.name == "aiokafka.producer.sender" and "NotEnoughReplicasError" in record.getMessage())
