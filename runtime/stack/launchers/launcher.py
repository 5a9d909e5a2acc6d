"""What every engine's launcher can do: `start() -> url`, `stop()`, `kill()`. Owns the steps they share."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from runtime.settings import mask_password
from runtime.stack import ports as loopback
from runtime.stack.errors import EngineFailedError
from runtime.stack.process import Daemon

_POLL_SECONDS = 0.05
_LOG_KEPT_BYTES = 16 * 1024 * 1024

Progress = Callable[[str], None]


class Launcher(ABC):
    """Starts and ends one engine whose data lies in `home/<name>`; `ports` are loopback ports by purpose."""

    name: ClassVar[str]
    port_purposes: ClassVar[tuple[str, ...]] = ("main",)
    start_seconds: ClassVar[float] = 60.0
    stop_seconds: ClassVar[float] = 15.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, home: Path, ports: dict[str, int]) -> None:
        self.home = home
        self.ports = ports
        self.folder = home / self.name
        self.data = self.folder / "data"
        self.log = home / "logs" / f"{self.name}.log"
        self.daemon = Daemon(self.folder, self.log)

    @property
    @abstractmethod
    def url(self) -> str:
        """The engine's address for clients."""

    @abstractmethod
    def version(self) -> str:
        """The engine's name and version; raises `PackageMissingError` when its package is not installed."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the engine serves a client's request now."""

    @abstractmethod
    def prepare(self, progress: Progress) -> None:
        """Bring the engine's files and data folder into a state in which it can start; called while it is stopped."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    def settle(self) -> None:  # noqa: B027 - most engines have nothing to settle
        """Make what the engine must hold before others use it; called whenever it answers."""

    def environment(self) -> dict[str, str]:
        """The engine's environment."""
        return dict(os.environ)

    def start(self, progress: Progress = lambda _: None) -> str:
        """Start the engine unless it runs, wait until it answers, return its URL; raises `EngineFailedError`."""
        # One that runs may still end before it answers: it was killed this moment, or its start went wrong.
        if not (self.daemon.alive() and self._answers_in_time()):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._rotate_log()
            self.prepare(progress)
            progress(f"{self.name}: starting {self.version()}")
            self.daemon.spawn(self.command(), cwd=self.folder, env=self.environment())
            if not self._answers_in_time():
                raise EngineFailedError(
                    f"{self.name} ended while it started; the end of {self.log}:\n{self.daemon.log_tail()}"
                )
        self.settle()
        progress(f"{self.name}: answers at {mask_password(self.url)}")
        return self.url

    def stop(self) -> None:
        """Let the engine end in order; by force what has not ended after `stop_seconds`."""
        self.daemon.stop(self.stop_signal, self.stop_seconds)

    def kill(self) -> None:
        """End the engine by kill -9, as a crash would."""
        self.daemon.kill()

    def port_taken(self) -> bool:
        """Whether somebody else listens on one of the engine's ports."""
        return not all(loopback.is_free(port) for port in self.ports.values())

    def _answers_in_time(self) -> bool:
        """Wait until it answers (true) or has ended (false); raises `EngineFailedError` when it does neither."""
        deadline = time.monotonic() + self.start_seconds
        while not self.answers():
            if not self.daemon.alive():
                return False
            if time.monotonic() > deadline:
                raise EngineFailedError(
                    f"{self.name} does not answer at {mask_password(self.url)} after {self.start_seconds:.0f} s; "
                    f"the end of {self.log}:\n{self.daemon.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)
        return True

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_KEPT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
