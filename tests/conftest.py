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
