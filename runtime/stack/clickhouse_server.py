"""The ClickHouse process of the embedded stack: `python -m runtime.stack.clickhouse_server --data DIR --port PORT`.

Owns the engine's data folder, which only one process may open, and serves ClickHouse's HTTP interface from it.
SIGTERM ends running queries, flushes and closes.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import uvicorn

from runtime.stack.clickhouse.engine import Engine
from runtime.stack.clickhouse.front import Front
from runtime.stack.clickhouse_names import DATABASE, PASSWORD_VARIABLE

# clickhouse-connect puts settings and an insert's columns into the URL; ClickHouse's own limit (http_max_uri_size).
_HEAD_MAX_BYTES = 1024 * 1024
_SHUTDOWN_SECONDS = 5


class _KnownBreak(logging.Filter):
    """Drops uvicorn's error about an answer without an end: the front breaks answers on purpose and logs why."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be kept."""
        return "without completing response" not in record.getMessage()


def main() -> None:
    """Serve until a signal says to end."""
    parser = argparse.ArgumentParser(description="ClickHouse's HTTP interface over an embedded engine")
    parser.add_argument("--data", type=Path, required=True, help="folder of the engine's files")
    parser.add_argument("--port", type=int, required=True, help="loopback port to listen on")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_KnownBreak())
    front = Front(lambda: Engine(arguments.data, DATABASE), os.environ.get(PASSWORD_VARIABLE, ""))
    uvicorn.run(
        front,
        host="127.0.0.1",
        port=arguments.port,
        http="h11",
        ws="none",
        lifespan="on",
        loop="uvloop",
        access_log=False,
        log_config=None,
        server_header=False,
        h11_max_incomplete_event_size=_HEAD_MAX_BYTES,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()
