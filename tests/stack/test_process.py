"""A daemon's life: started apart from its starter, known alive by its lock, and ended with its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.stack.process import Daemon

pytestmark = pytest.mark.slow

SLEEPER = ["/bin/sh", "-c", "echo started; exec sleep 1000"]
# A parent that dies at once by SIGTERM, and a child that goes on.
WITH_CHILD = ["/bin/sh", "-c", "sleep 1000 & echo child $!; exec sleep 1000"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(1000)",
]


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "engine", tmp_path / "engine.log")


def spawn(daemon: Daemon, argv: list[str], tmp_path: Path) -> int:
    daemon.spawn(argv, cwd=tmp_path, env=dict(os.environ))
    while daemon.pid() is None or not daemon.log_tail():  # bounded by the test's own timeout
        assert daemon.alive()
    pid = daemon.pid()
    assert pid is not None
    return pid


def test_a_daemon_is_nobodys_child_and_in_a_session_of_its_own(daemon: Daemon, tmp_path: Path) -> None:
    pid = spawn(daemon, SLEEPER, tmp_path)
    assert daemon.alive()
    assert os.getsid(pid) != os.getsid(0)
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[1]) != os.getpid()
    daemon.stop(signal.SIGTERM, 5)
    assert not daemon.alive()
    assert daemon.pid() is None


def test_it_outlives_its_starter(tmp_path: Path) -> None:
    starter = (
        "import os, sys, pathlib; from runtime.stack.process import Daemon; t = pathlib.Path(sys.argv[1]);"
        "Daemon(t / 'engine', t / 'engine.log').spawn(['/bin/sleep', '1000'], cwd=t, env=dict(os.environ))"
    )
    subprocess.run([sys.executable, "-c", starter, str(tmp_path)], check=True)
    daemon = Daemon(tmp_path / "engine", tmp_path / "engine.log")
    assert daemon.alive()
    daemon.kill()
    assert not daemon.alive()


def test_a_process_that_only_has_its_number_is_not_taken_for_it(daemon: Daemon, tmp_path: Path) -> None:
    spawn(daemon, SLEEPER, tmp_path)
    daemon.kill()
    (tmp_path / "engine" / "pid").write_text(f"{os.getpid()}\n")  # the number was given to somebody else
    assert not daemon.alive()
    assert daemon.pid() is None
    daemon.stop(signal.SIGKILL, 0.1)  # must not reach this very process


def test_a_child_that_outlives_its_killed_parent_counts_and_is_ended(daemon: Daemon, tmp_path: Path) -> None:
    pid = spawn(daemon, WITH_CHILD, tmp_path)
    child = int(daemon.log_tail().split()[-1])
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
        pass
    assert daemon.alive()
    daemon.kill()
    assert not daemon.alive()
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]


def test_one_that_does_not_listen_is_ended_by_force(daemon: Daemon, tmp_path: Path) -> None:
    spawn(daemon, STUBBORN, tmp_path)
    daemon.stop(signal.SIGTERM, 0.2)
    assert not daemon.alive()


def test_stopping_what_does_not_run_does_nothing(daemon: Daemon) -> None:
    daemon.stop(signal.SIGTERM, 1)
    daemon.kill()
    assert not daemon.alive()
    assert daemon.log_tail() == ""


def test_a_program_that_does_not_exist_leaves_its_reason_in_the_log(daemon: Daemon, tmp_path: Path) -> None:
    daemon.spawn(["/no/such/program"], cwd=tmp_path, env=dict(os.environ))
    while daemon.alive():
        pass
    assert "/no/such/program" in daemon.log_tail()
