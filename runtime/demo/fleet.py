"""The processes of a demo or an end-to-end test: started with their settings, ended by their own id, logs kept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import MeterbookError

STOP_SECONDS = 15.0


class ProcessDiedError(MeterbookError):
    """A process of the fleet ended by itself; the message says which, how, and the end of its log."""

    code = "process_died"


@dataclass
class Member:
    """One running process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int


@dataclass
class Fleet:
    """Starts `meterbook` processes with `environment` on top of the caller's."""

    folder: Path
    environment: dict[str, str]
    members: dict[str, Member] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> Member:
        """Start `meterbook <command>` under `name`; its output goes to `<folder>/<name>.log`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{name}.log"
        port = free_port()
        environment = {**os.environ, **self.environment, "METERBOOK_METRICS_PORT": str(port)}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "runtime", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        member = self.members[name] = Member(name, process, log, port)
        return member

    def kill(self, name: str) -> None:
        """End a process with kill -9, as a crash would."""
        member = self.members.pop(name)
        member.process.kill()
        member.process.wait()

    def check(self) -> None:
        """Raise `ProcessDiedError` if any process has ended."""
        for member in self.members.values():
            code = member.process.poll()
            if code is not None:
                tail = "\n".join(member.log.read_text(errors="replace").splitlines()[-15:])
                raise ProcessDiedError(f"{member.name} ended with code {code}; see {member.log}\n{tail}")

    def stop(self) -> dict[str, int]:
        """End all with SIGTERM, those that do not follow with kill -9; returns exit codes by name."""
        for member in self.members.values():
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        codes = {}
        for member in self.members.values():
            try:
                codes[member.name] = member.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                member.process.kill()
                codes[member.name] = member.process.wait()
        self.members.clear()
        return codes


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
