"""Waiting out an outage: again and again with growing pauses, but only for what is an outage."""

from __future__ import annotations

import pytest

from runtime import patience
from runtime.patience import until_done


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    return taken


async def test_it_tries_until_it_is_done_and_pauses_longer_up_to_a_bound(pauses: list[float]) -> None:
    failures = iter([ConnectionError(), TimeoutError(), *[OSError()] * 10])

    async def call() -> str:
        for failure in failures:
            raise failure
        return "done"

    assert await until_done("store", call, transient=(OSError,), first_pause_s=1, longest_pause_s=8) == "done"
    assert len(pauses) == 12
    for pause, bound in zip(pauses, [1, 2, 4, 8, *[8] * 8], strict=True):
        assert bound / 2 <= pause <= bound
    assert len(set(pauses)) > 6


async def test_what_is_no_outage_is_raised_at_once(pauses: list[float]) -> None:
    async def call() -> None:
        raise ValueError("our own mistake")

    with pytest.raises(ValueError, match="our own mistake"):
        await until_done("store", call, transient=(OSError,))
    assert pauses == []
