"""A stage for each story."""

from __future__ import annotations

import pytest

from tests.invoicing.life.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()
