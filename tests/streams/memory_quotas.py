"""Live quotas in memory: passes the same contract as Redis (test_quota_contract.py), and can lose what it holds."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from core.quantity import unscale
from streams.domain.quota_totals import (
    BILLING_LENGTH,
    HOUR_LENGTH,
    MONTH_LENGTH,
    PeriodKey,
    PeriodState,
    Total,
    decode_state,
    encode_state,
)


class MemoryStore:
    """What all writers share."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str, str], dict[tuple[int, int], Total]] = {}
        self.filled: dict[int, str] = {}
        self.hours_filled: dict[int, str] = {}
        self.held: dict[str, tuple[str, bytes]] = {}
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

    async def take_held(self, tenants: Collection[str], identities: Collection[bytes]) -> list[str]:
        held = self._store.held
        taken = [name for name, (tenant, event) in held.items() if tenant in tenants and event in identities]
        for name in taken:
            del held[name]
        return taken

    async def has_all(self, journal_offset: int) -> bool:
        return (
            self._partition in self._store.filled
            and self._store.progress.get(self._partition, -(10**9)) >= journal_offset
        )

    async def begin_filling(self) -> str:
        self._tokens += 1
        self._store.filled.pop(self._partition, None)
        self._store.hours_filled.pop(self._partition, None)
        self._store.filling[self._partition] = f"{id(self)}-{self._tokens}"
        return self._store.filling[self._partition]

    async def mark_filled(self, token: str, *, hours: bool = False) -> bool:
        if self._store.filling.get(self._partition) != token:
            return False
        (self._store.hours_filled if hours else self._store.filled)[self._partition] = token
        return True

    async def mark_progress(self, journal_offset: int, received_ms: int) -> None:
        self._store.progress[self._partition] = journal_offset

    async def used(self, tenant: str, meter: str, period: str) -> Decimal:
        held = self._store.totals.get((tenant, meter, period), {})
        return unscale(sum(total.quantity for total in held.values()))


class MemoryBook:
    """The totals of one partition in memory, stored as bytes so that what was not put is not there."""

    def __init__(self) -> None:
        self.rows: dict[PeriodKey, bytes] = {}

    def find(self, key: PeriodKey) -> PeriodState | None:
        return decode_state(key, self.rows[key]) if key in self.rows else None

    def put(self, states: Mapping[PeriodKey, PeriodState]) -> None:
        self.rows.update({key: encode_state(state) for key, state in states.items()})

    def newest(self) -> Iterable[PeriodKey]:
        found: dict[tuple[str, str, int], str] = {}
        for tenant, meter, period in self.rows:
            if len(period) in (MONTH_LENGTH, BILLING_LENGTH):
                kind = (tenant, meter, len(period))
                found[kind] = max(period, found.get(kind, ""))
        return [(tenant, meter, period) for (tenant, meter, _), period in found.items()]

    def periods(self, *, hours: bool) -> Iterator[tuple[PeriodKey, PeriodState]]:
        keys = [key for key in self.rows if (len(key[2]) == HOUR_LENGTH) == hours]
        for key in sorted(keys, key=lambda key: key[2], reverse=hours):
            yield key, decode_state(key, self.rows[key])
