"""Follows a batch run: how many of its requests the workers have handled, until it is all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

# Told after every look: how many requests are handled, of how many.
Shown = Callable[[int, int], None]


class RequestsWaiting(Protocol):
    """The invoicing requests that lay on the topic when this was opened."""

    async def waiting(self) -> int:
        """Return how many of them are still to be handled; what came later does not count."""
        ...


async def follow_run(requests: RequestsWaiting, shown: Shown, *, pause_seconds: float) -> int:
    """Return, once all are handled, how many there were; waits for as long as no worker runs."""
    first = left = await requests.waiting()
    shown(0, first)
    while left:
        await asyncio.sleep(pause_seconds)
        left = await requests.waiting()
        shown(first - left, first)
    return first
