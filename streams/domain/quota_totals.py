"""Live totals per tenant, meter and period of one source partition, and which quota thresholds they have reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.journal import JournalEntry
from core.quantity import unscale

PeriodKey = tuple[str, str, str]
MONTH_LENGTH = len("2026-10")
# Hours serve rolling limits: nobody asks for one that was last touched days ago, and there are many.
HOURS_KEPT_MS = 3 * 86_400_000
_FORGET_EVERY_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class QuotaLimit:
    """The limit of a meter for a tenant and calendar month, in the meter's unit; `hard` stops the tenant."""

    limit: Decimal
    unit: str
    hard: bool


@dataclass(frozen=True, slots=True)
class Total:
    """One segment of a period's total, as the journal entry at `version` left it."""

    tenant: str
    meter: str
    period: str
    segment: int
    quantity: int
    events: int
    version: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class Crossing:
    """A total reached a threshold (percent of the limit) within a month."""

    tenant: str
    meter: str
    period: str
    percent: int
    used: Decimal
    limit: Decimal
    unit: str


Limits = Mapping[tuple[str, str], QuotaLimit]


class QuotaTotals:
    """Totals as the journal tells them, and the crossings already announced by this process."""

    def __init__(self, thresholds_percent: Iterable[int]) -> None:
        self._thresholds = tuple(sorted(thresholds_percent))
        self._totals: dict[PeriodKey, dict[int, Total]] = {}
        self._newest_month = ""
        self._keys_of_newest_month: set[PeriodKey] = set()
        self._forgotten_ms = 0
        self._announced: set[tuple[PeriodKey, int, Decimal]] = set()

    def apply(self, version: int, entry: JournalEntry) -> list[Total]:
        """Take over an entry's period totals; returns those that changed."""
        changed = []
        for row in entry.periods:
            key = (row.tenant, row.meter, row.period)
            segments = self._totals.setdefault(key, {})
            known = segments.get(row.segment)
            if known is not None and known.version >= version:
                continue
            total = Total(
                row.tenant,
                row.meter,
                row.period,
                row.segment,
                int(row.quantity),
                row.events,
                version,
                entry.received_ms,
            )
            segments[row.segment] = total
            changed.append(total)
            if len(row.period) == MONTH_LENGTH and row.period >= self._newest_month:
                if row.period > self._newest_month:
                    self._newest_month, self._keys_of_newest_month = row.period, set()
                self._keys_of_newest_month.add(key)
        self._forget(entry.received_ms)
        return changed

    def all_totals(self) -> list[Total]:
        """Return everything, for a store that was wiped."""
        return [total for segments in self._totals.values() for total in segments.values()]

    def used(self, tenant: str, meter: str, period: str) -> Decimal:
        """Return a period's total over its segments."""
        return unscale(sum(total.quantity for total in self._totals.get((tenant, meter, period), {}).values()))

    def crossings(self, limits: Limits, among: Iterable[PeriodKey] | None = None) -> list[Crossing]:
        """Return thresholds reached in months and not announced yet, lowest first, and remember them.

        A raised limit re-arms: it is part of what was announced. `among` narrows the search to changed periods; without
        it the newest month is searched, for a limit that was changed today says nothing about the months before.
        """
        found = []
        for key in self._keys_of_newest_month if among is None else set(among):
            tenant, meter, period = key
            quota = limits.get((tenant, meter))
            if quota is None or quota.limit <= 0 or len(period) != MONTH_LENGTH:
                continue
            used = self.used(tenant, meter, period)
            for percent in self._thresholds:
                mark = (key, percent, quota.limit)
                if used * 100 >= quota.limit * percent and mark not in self._announced:
                    self._announced.add(mark)
                    found.append(Crossing(tenant, meter, period, percent, used, quota.limit, quota.unit))
        return sorted(found, key=lambda crossing: (crossing.tenant, crossing.meter, crossing.period, crossing.percent))

    def _forget(self, received_ms: int) -> None:
        if received_ms - self._forgotten_ms < _FORGET_EVERY_MS:
            return
        self._forgotten_ms = received_ms
        oldest_ms = received_ms - HOURS_KEPT_MS
        old = [
            key
            for key, segments in self._totals.items()
            if len(key[2]) != MONTH_LENGTH and all(total.received_ms < oldest_ms for total in segments.values())
        ]
        for key in old:
            del self._totals[key]
