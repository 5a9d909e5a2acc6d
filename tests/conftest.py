"""Fixtures for the whole suite: the real engines, fresh for every folder of tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from runtime.kafka_topics import create_topics
from runtime.migrations import migrate
from runtime.settings import Settings, load_settings
from runtime.stack import StackState, down, up
from tests.shared_data import SHARED_DATA
from tests.standins.process import Standins, start_standins

# A busy machine is no fault of the code: no test asserts a time.
hypothesis_settings.register_profile(
    "no clock", hypothesis_settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# For one's own loop (make test-fast): laws are tried, not proven.
hypothesis_settings.register_profile("fast", hypothesis_settings.get_profile("no clock"), max_examples=10)
hypothesis_settings.load_profile("no clock")


@dataclass
class Stacks:
    """The embedded stack of the folder whose tests run: another folder's records, meters and plans are not in it."""

    temporary: pytest.TempPathFactory
    folder: Path | None = None
    state: StackState | None = None

    def of(self, folder: Path) -> StackState:
        """Return the running stack of a folder; another folder's is ended first."""
        if self.state is None or folder != self.folder:
            self.close()
            self.folder, self.state = folder, up(self.temporary.mktemp("meterbook"), progress=print)
        return self.state

    def close(self) -> None:
        """End the stack that runs, if one does."""
        if self.state is not None:
            down(self.state.home)
            self.state = None


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    """One stack at a time, started when a folder's first test asks for it."""
    stacks = Stacks(tmp_path_factory)
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
