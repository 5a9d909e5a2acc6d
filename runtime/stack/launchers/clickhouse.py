"""ClickHouse. Owns starting our own server process over the chDB engine (`runtime.stack.clickhouse_server`)."""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import os
import sys
from typing import ClassVar
from urllib.parse import quote

from runtime.stack.clickhouse_names import DATABASE, PASSWORD_VARIABLE
from runtime.stack.errors import PackageMissingError
from runtime.stack.launchers.launcher import Launcher, Progress
from runtime.stack.ports import LOOPBACK


class ClickHouseLauncher(Launcher):
    """The ClickHouse engine behind its HTTP interface, with the database `meterbook`."""

    name: ClassVar[str] = "clickhouse"
    start_seconds: ClassVar[float] = 90.0
    stop_seconds: ClassVar[float] = 20.0

    @property
    def url(self) -> str:
        """`http://` URL with the database as its path."""
        password = os.environ.get(PASSWORD_VARIABLE, "")
        user = f"default:{quote(password, safe='')}@" if password else ""
        return f"http://{user}{LOOPBACK}:{self.ports['main']}/{DATABASE}"

    def version(self) -> str:
        """Such as `ClickHouse 26.9.0 (chDB)`."""
        try:
            return f"ClickHouse {importlib.metadata.version('chdb-core')} (chDB)"
        except importlib.metadata.PackageNotFoundError:
            return "ClickHouse (chDB)"

    def answers(self) -> bool:
        """Whether it says Ok to a ping; it listens only once the engine is open."""
        connection = http.client.HTTPConnection(LOOPBACK, self.ports["main"], timeout=5.0)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().read() == b"Ok.\n"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def prepare(self, progress: Progress) -> None:
        """Make the data folder."""
        if importlib.util.find_spec("chdb") is None:
            raise PackageMissingError(
                "chdb, the ClickHouse engine, is missing: run `make setup`, or pip install 'meterbook[embedded]'"
            )
        self.data.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        """This Python with the server's module."""
        port = str(self.ports["main"])
        return [sys.executable, "-m", "runtime.stack.clickhouse_server", "--data", str(self.data), "--port", port]

    def environment(self) -> dict[str, str]:
        """The environment with UTC as the server's time zone, whatever the machine's is."""
        return {**os.environ, "TZ": "UTC"}
