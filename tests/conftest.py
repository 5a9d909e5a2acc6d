"""Fixtures for the whole suite: the real engines, started once and ended when the last test is done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from runtime.kafka_topics import create_topics
from runtime.migrations import migrate
from runtime.settings import Settings, load_settings
from runtime.stack import StackState, down, up
from tests.shared_data import SHARED_DATA


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    """The embedded stack in a folder of its own; tests share it and keep to names of their own."""
    home = tmp_path_factory.mktemp("meterbook")
    try:
        yield up(home, progress=print)
    finally:
        down(home)


@pytest.fixture(scope="session")
def settings(stack: StackState) -> Iterator[Settings]:
    """Settings of the session's stack, with both stores migrated and all topics made; the caller's own are left out."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("METERBOOK_")]:
            environment.delenv(name)
        settings = load_settings(home=stack.home)
        migrate(settings)
        asyncio.run(create_topics(settings))
        yield settings


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
