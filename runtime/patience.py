"""Waiting out an outage: the same call again with growing pauses, without a limit, telling why."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger()


async def until_done(
    what: str,
    call: Callable[[], Awaitable[T]],
    *,
    transient: tuple[type[BaseException], ...],
    first_pause_s: float = 0.1,
    longest_pause_s: float = 10.0,
) -> T:
    """Return the call's result, trying again on `transient` errors for as long as it takes.

    For work that must not be skipped (a sink of the journal): the partition waits meanwhile and memory stays bounded.
    Pauses double up to `longest_pause_s`, each cut by a random part so that workers do not return in step.
    """
    pause = first_pause_s
    while True:
        try:
            return await call()
        except transient as error:
            log.warning("waiting", what=what, error=repr(error)[:300], pause_seconds=round(pause, 2))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(longest_pause_s, pause * 2)
