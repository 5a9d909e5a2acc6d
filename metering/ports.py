"""What a question about usage needs of the store."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from metering.domain.carried_levels import Change
from metering.domain.usage_query import UsageQuery

# (start of the window in whole seconds since 1970 UTC, values of the grouping, quantity, events)
Found = tuple[int, tuple[str, ...], Decimal, int]


class UsageStore(Protocol):
    """Counted usage. `starts` are the windows' starts in whole seconds; the query's span bounds what is read.

    Every call raises `UnavailableError` if the store does not answer.
    """

    async def added_up(self, query: UsageQuery, starts: Sequence[int], limit: int) -> list[Found]:
        """Return sums of an additive meter by window and group, after the query's position; no empty windows."""
        ...

    async def sampled(self, query: UsageQuery, starts: Sequence[int], limit: int) -> list[Found]:
        """Return what a unique, max, min or latest meter holds by window and group, after the query's position."""
        ...

    async def level_changes(self, query: UsageQuery, starts: Sequence[int], until_us: int, limit: int) -> list[Change]:
        """Return how the levels of a time-weighted meter changed up to `until_us`, by stretch and group."""
        ...
