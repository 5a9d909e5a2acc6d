"""Fixtures for the whole suite: the real engines, fresh for every folder of tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from runtime.kafka_topics import create_topics
from runtime.migrations import migrate
from runtime.settings import Settings, load_settings
from runtime.stack import StackState, down
from runtime.stack.state import read_state
from tests.shared_data import SHARED_DATA
from tests.standins.process import Standins, start_standins

# A busy machine is no fault of the code: no test asserts a time.
hypothesis_settings.register_profile(
    "no clock", hypothesis_settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# For one's own loop (make test-fast): laws are tried, not proven.
hypothesis_settings.register_profile("fast", hypothesis_settings.get_profile("no clock"), max_examples=10)
hypothesis_settings.load_profile("no clock")


class Stacks:
    """The embedded stack of the folder whose tests run: another folder's records, meters and plans are not in it.

    While a folder's tests run the next one's stack is started beside them, in a process of its own, which nothing that
    a test replaces or sets reaches.
    """

    def __init__(self, temporary: pytest.TempPathFactory, folders: int) -> None:
        self._temporary = temporary
        self._left = folders
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
        self._folder: Path | None = None
        self._state: StackState | None = None
        self._next: tuple[Path, subprocess.Popen[str]] | None = None

    def of(self, folder: Path) -> StackState:
        """Return the running stack of a folder; another folder's is ended first."""
        if self._state is None or folder != self._folder:
            self._end()
            self._left -= 1
            self._folder, self._state = folder, self._started(self._next or self._start())
            self._next = self._start() if self._left > 0 else None
        return self._state

    def close(self) -> None:
        """End the stack that runs, and the next if it was begun."""
        self._end()
        if self._next is not None:
            down(self._started(self._next).home)

    def _end(self) -> None:
        if self._state is not None:
            down(self._state.home)
            self._state = None

    def _start(self) -> tuple[Path, subprocess.Popen[str]]:
        home = self._temporary.mktemp("meterbook")
        starting = subprocess.Popen(
            [sys.executable, "-m", "runtime", "up"],
            env=self._environment | {"METERBOOK_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return home, starting

    def _started(self, one: tuple[Path, subprocess.Popen[str]]) -> StackState:
        home, starting = one
        said, _ = starting.communicate()
        print(said)
        assert starting.returncode == 0, said
        return read_state(home)


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stacks]:
    """One stack at a time, started before a folder's first test asks for it."""
    asking = (item for item in request.session.items if "stack" in getattr(item, "fixturenames", ()))
    stacks = Stacks(tmp_path_factory, len({item.path.parent for item in asking}))
    yield stacks
    stacks.close()


@pytest.fixture(scope="module")
def stack(stacks: Stacks, request: pytest.FixtureRequest) -> StackState:
    """The embedded stack; tests of one folder share it and keep to names of their own."""
    return stacks.of(request.path.parent)


@pytest.fixture(scope="module")
def settings(stack: StackState) -> Iterator[Settings]:
    """Settings of the folder's stack, with both stores migrated and all topics made; the caller's own are left out."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("METERBOOK_")]:
            environment.delenv(name)
        settings = load_settings(home=stack.home)
        migrate(settings)
        asyncio.run(create_topics(settings))
        yield settings


@pytest.fixture(scope="module")
def migrated(stack: StackState) -> StackState:
    """The folder's stack with both stores migrated, for settings of a folder's own."""
    migrate(load_settings(home=stack.home))
    return stack


@pytest.fixture(scope="session")
def running_standins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standins]:
    """One process of stand-ins; `standins` empties it for every test."""
    standins = start_standins(None, tmp_path_factory.mktemp("standins"))
    yield standins
    assert standins.stop() == 0


@pytest.fixture
def standins(running_standins: Standins) -> Standins:
    """Stand-ins for the providers that remember nothing."""
    running_standins.reset()
    return running_standins


_left_out: list[pytest.Item] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that read the reference traces where those are absent (a user's clone), and say so."""
    if SHARED_DATA.is_dir():
        return
    _left_out[:] = [item for item in items if item.get_closest_marker("shared_data")]
    if _left_out:
        config.hook.pytest_deselected(items=_left_out)
        items[:] = [item for item in items if item not in _left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out, at the end where it is seen."""
    if _left_out:
        terminalreporter.section("left out: the reference traces are not beside this checkout")
        for item in _left_out:
            terminalreporter.write_line(item.nodeid)
