"""Meterbook's own worker processes, started, killed and ended as an operator would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


class WorkerProcess:
    """One `meterbook worker NAME`; its log goes to a file in `folder`."""

    _count = 0

    def __init__(self, name: str, home: Path, folder: Path, **settings: str) -> None:
        WorkerProcess._count += 1
        self.name = name
        self.log = folder / f"{name}-{WorkerProcess._count}.log"
        own = {key: value for key, value in os.environ.items() if not key.startswith("METERBOOK_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runtime", "worker", name],
                env={**own, "METERBOOK_HOME": str(home), **settings},
                cwd=folder,
                stdout=log,
                stderr=log,
            )

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    def logged(self, event: str) -> bool:
        """Whether its log tells of an event."""
        return f'"event": "{event}"' in self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End it by kill -9."""
        assert self.running, self.tail()
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code; an operator's patience is ten seconds."""
        assert self.running, self.tail()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def discard(self) -> None:
        """End it whatever its state."""
        if self.running:
            self.process.kill()
        self.process.wait()

    def tail(self, lines: int = 25) -> str:
        """Return the end of its log."""
        return f"{self.name} (exit code {self.process.poll()}):\n" + "\n".join(
            self.log.read_text(errors="replace").splitlines()[-lines:]
        )
