"""The product's processes, and a small supervisor that starts again what ended, as an operator's would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[2]
_LOOK_SECONDS = 0.05


class Worker:
    """One `meterbook ...` process; `plan` says how it is tampered with (`tests.chaos.entry`), None not at all."""

    _count = 0

    def __init__(self, name: str, command: tuple[str, ...], environment: dict[str, str], folder: Path, plan: Any):
        Worker._count += 1
        self.name, self.command, self.plan = name, command, plan
        self.environment, self.folder = environment, folder
        self.log = folder / f"{name}-{Worker._count}.log"
        self.is_wanted = True  # the supervisor starts another when this one ends
        self.killed = False
        start = ["-m", "tests.chaos.entry", json.dumps(plan)] if plan else ["-m", "runtime"]
        own = {key: value for key, value in os.environ.items() if not key.startswith("METERBOOK_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *start, *command],
                env={**own, **environment, "PYTHONPATH": str(ROOT)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    @property
    def rss_mb(self) -> float:
        """Resident memory in MB, 0 if it has ended."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return 0.0

    def logged(self, event: str) -> int:
        """Return how often its log tells of an event."""
        return self.log.read_text(errors="replace").count(f'"event": "{event}"')

    def kill(self) -> None:
        """End it by kill -9."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def tail(self, lines: int = 25) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"--- {self.name} (exit code {self.process.poll()}) {self.log}\n" + "\n".join(text)


@dataclass
class Fleet:
    """Workers by name. What ends without being asked to is written down in `ended` and started again."""

    environment: dict[str, str]
    folder: Path
    plan: dict[str, Any] = field(default_factory=dict)
    restart_pause_s: float = 0.2
    workers: list[Worker] = field(default_factory=list)
    ended: list[tuple[str, int]] = field(default_factory=list)
    restarts: int = 0
    _due: list[tuple[float, Worker]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turn = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    def start(self, name: str, *command: str, plan: dict[str, Any] | None = None, **environment: str) -> Worker:
        """Start a worker; `plan` comes on top of the fleet's."""
        with self._turn:
            worker = Worker(
                name,
                command or ((name,) if name == "api" else ("worker", name)),
                {**self.environment, **environment},
                self.folder,
                {**self.plan, **(plan or {})},
            )
            self.workers.append(worker)
            return worker

    def the(self, name: str) -> Worker:
        """Return a running worker of that name; starts one if there is none."""
        with self._turn:
            self._note_fallen()
            if found := self.running(name):
                return found[0]
            for due in self._due:
                if due[1].name == name:  # the supervisor was about to
                    self._due.remove(due)
                    return self._restart(due[1])
            return self.start(name)

    def running(self, name: str) -> list[Worker]:
        """Return the running workers of a name, oldest first."""
        with self._turn:
            return [one for one in self.workers if one.name == name and one.is_running and one.is_wanted]

    def kill(self, name: str) -> None:
        """End one by kill -9; the supervisor starts another."""
        self.the(name).kill()

    def terminate(self, worker: Worker, patience_s: float = 10.0) -> tuple[int | None, float]:
        """Send SIGTERM to a worker that is not wanted any more; returns exit code (None: too slow) and seconds."""
        worker.is_wanted = False
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        try:
            code: int | None = worker.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            code = None
            worker.process.kill()
            worker.process.wait()
        return code, time.monotonic() - began

    def discard(self, *names: str) -> None:
        """End workers by kill -9 for good, all if no name is given."""
        with self._turn:
            self._due = [(at, worker) for at, worker in self._due if names and worker.name not in names]
            for worker in self.workers:
                if not names or worker.name in names:
                    worker.is_wanted = False
                    if worker.is_running:
                        worker.process.kill()
                        worker.process.wait()

    def close(self) -> None:
        """End everything."""
        self._stopping.set()
        self._thread.join()
        self.discard()

    def _supervise(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            with self._turn:
                self._note_fallen()
                now = time.monotonic()
                ready = [worker for at, worker in self._due if at <= now]
                self._due = [(at, worker) for at, worker in self._due if at > now]
                for worker in ready:
                    self._restart(worker)

    def _note_fallen(self) -> None:
        for worker in self.workers:
            if worker.is_wanted and not worker.is_running:
                worker.is_wanted = False
                # What ends by itself is given a moment longer: whatever was in its way may have gone by then.
                pause_s = self.restart_pause_s if worker.killed else 4 * self.restart_pause_s
                self._due.append((time.monotonic() + pause_s, worker))
                if not worker.killed:
                    self.ended.append((worker.name, worker.process.returncode))

    def _restart(self, worker: Worker) -> Worker:
        self.restarts += 1
        # Only the worker whose death was planned dies of it; who replaces it works as it should.
        plan = {name: change for name, change in (worker.plan or {}).items() if name not in ("die", "freeze")}
        own = {name: value for name, value in worker.environment.items() if self.environment.get(name) != value}
        return self.start(worker.name, *worker.command, plan=plan, **own)
