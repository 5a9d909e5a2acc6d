"""Live quotas in memory: passes the same contract as Redis (test_quota_contract.py), and can lose what it holds."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from core.quantity import unscale
from streams.domain.quota_totals import Total


class MemoryStore:
    """What all writers share."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str, str], dict[tuple[int, int], Total]] = {}
        self.filled: dict[int, int] = {}
        self.filling: dict[int, str] = {}
        self.progress: dict[int, int] = {}

    def wipe(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def save(self) -> dict[str, Any]:
        """Return a copy to go back to."""
        return copy.deepcopy(vars(self))

    def go_back_to(self, save: dict[str, Any]) -> None:
        """Restart from an earlier save."""
        vars(self).update(copy.deepcopy(save))


class MemoryQuotas:
    """Writes the totals of one source partition."""

    def __init__(self, store: MemoryStore, partition: int) -> None:
        self._store, self._partition = store, partition
        self._tokens = 0

    async def write(self, totals: Iterable[Total]) -> None:
        for total in totals:
            held = self._store.totals.setdefault((total.tenant, total.meter, total.period), {})
            known = held.get((self._partition, total.segment))
            if known is None or known.version < total.version:
                held[self._partition, total.segment] = total

    async def has_all(self, journal_offset: int) -> bool:
        return (
            self._partition in self._store.filled
            and self._store.progress.get(self._partition, -(10**9)) >= journal_offset
        )

    async def begin_filling(self) -> str:
        self._tokens += 1
        self._store.filled.pop(self._partition, None)
        self._store.filling[self._partition] = f"{id(self)}-{self._tokens}"
        return self._store.filling[self._partition]

    async def mark_filled(self, at_ms: int, token: str | None = None) -> bool:
        if token is not None and self._store.filling.pop(self._partition, None) != token:
            return False
        self._store.filled[self._partition] = at_ms
        return True

    async def mark_progress(self, journal_offset: int, received_ms: int) -> None:
        self._store.progress[self._partition] = journal_offset

    async def used(self, tenant: str, meter: str, period: str) -> Decimal:
        held = self._store.totals.get((tenant, meter, period), {})
        return unscale(sum(total.quantity for total in held.values()))
