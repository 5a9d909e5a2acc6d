"""An engine's process. Owns starting a daemon, knowing for certain whether it lives, and ending it.

Liveness is a lock, not a number: the daemon inherits an open file that is locked (`flock`), and the kernel frees the
lock when the last process that holds it is gone, kill -9 included. So a process id that was given to somebody else
is never mistaken for an engine, and children that outlive a killed parent (PostgreSQL's backends) still count.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, Signals

from runtime.stack.errors import EngineUnstoppableError

_POLL_SECONDS = 0.02
# The inner shell writes its own process id and then becomes the engine, so the number is right from the first moment;
# the outer shell ends at once, so the engine is nobody's child and leaves no zombie to a long-lived starter.
_DAEMONIZE = '"$@" &'
_WRITE_PID_THEN_BECOME = 'echo $$ >"$0" && exec "$@"'


class Daemon:
    """One engine's process, found by its folder: `lock` and `pid` files there tell about it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.log = log
        self._folder = folder
        self._lock = folder / "lock"
        self._pid = folder / "pid"

    def spawn(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        """Start `argv` as a daemon in its own session, output appended to the log; must not be running already."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._pid.unlink(missing_ok=True)
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Waits only for a moment: somebody who looks whether the engine lives holds a shared lock meanwhile.
            fcntl.flock(handle, fcntl.LOCK_EX)
            write_pid_then_become = ["/bin/sh", "-c", _WRITE_PID_THEN_BECOME, str(self._pid), *argv]
            with self.log.open("ab") as log:
                subprocess.run(
                    ["/bin/sh", "-c", _DAEMONIZE, "sh", *write_pid_then_become],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=cwd,
                    env=dict(env),
                    pass_fds=(handle,),
                    start_new_session=True,
                    check=True,
                )
        finally:
            os.close(handle)

    def alive(self) -> bool:
        """Whether the engine, or a child of it, is running."""
        try:
            handle = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(handle)

    def pid(self) -> int | None:
        """The engine's process id; None when it is not running."""
        if not self.alive():
            return None
        try:
            return int(self._pid.read_text())
        except (FileNotFoundError, ValueError):
            return None  # started this moment: the shell has not written it yet

    def signal(self, number: Signals) -> None:
        """Send a signal to the engine's own process; nothing happens when it is not running."""
        pid = self.pid()
        if pid is not None:
            _send(pid, number)

    def stop(self, number: Signals, patience_seconds: float) -> None:
        """Ask the engine to end, wait for it and all its children, and end by force what is left after the wait."""
        self._await_pid()
        self.signal(number)
        if not self._wait_gone(patience_seconds):
            self.kill()
        self._pid.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the engine by kill -9 and wait until the kernel has taken it and all its children away."""
        self._await_pid()
        self.signal(SIGKILL)
        # Children that notice their parent's death end by themselves; those that do not are ended one by one.
        if self._wait_gone(2.0):
            return
        holders = self._holders()
        for pid in holders:
            _send(pid, SIGKILL)
        if not self._wait_gone(10.0):
            raise EngineUnstoppableError(f"processes {holders} of {self._folder} do not end: end them by hand")

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the engine's log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def _holders(self) -> list[int]:
        """Process ids of all that hold the lock open, as far as this user may look."""
        lock = str(self._lock.resolve())
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with suppress(OSError):
                    if any(os.readlink(handle) == lock for handle in (folder / "fd").iterdir()):
                        found.append(int(folder.name))
        return found

    def _wait_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _await_pid(self) -> None:
        deadline = time.monotonic() + 2.0
        while self.alive() and self.pid() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _send(pid: int, number: Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
