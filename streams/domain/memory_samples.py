"""The sample book in memory: every period that an `apply` may have changed is added up again from all samples.

Simple rather than fast: it is what other implementations are compared with, and what tests of a partition use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.journal import PRESENT, PeriodRow, SampleRow
from streams.domain.period_totals import (
    Held,
    Levels,
    PeriodNames,
    Total,
    changed_rows,
    number_total,
    present_total,
    unique_total,
)
from streams.ports import PeriodsOf

SampleName = tuple[tuple[str, ...], int, int]


@dataclass
class _Meter:
    """The samples of one tenant's meter, and the totals that were told of it."""

    aggregation: str
    samples: dict[SampleName, SampleRow] = field(default_factory=dict)
    told: dict[str, Total] = field(default_factory=dict)
    bounds: dict[str, tuple[int, int]] = field(default_factory=dict)
    base: dict[tuple[str, ...], int] = field(default_factory=dict)
    horizon_us: int = 0


class MemorySamples:
    """Samples of one source partition (`streams.ports.SampleBook`); gone with the process, so never durable."""

    def __init__(self) -> None:
        self.journal_offset = -1
        self._meters: dict[tuple[str, str], _Meter] = {}

    def apply(self, samples: Sequence[SampleRow], periods: PeriodsOf) -> list[PeriodRow]:
        """Take samples in or out and return the totals that changed, sorted by tenant, meter and period."""
        touched: dict[tuple[str, str], None] = {}
        for row in samples:
            key = (row.tenant, row.meter)
            meter = self._meters.get(key)
            if meter is None:
                meter = self._meters[key] = _Meter(periods.aggregation(row.meter))
            touched[key] = None
            name = (row.dimensions, row.offset, row.index)
            if row.removed:
                meter.samples.pop(name, None)
            elif row.time_us >= meter.horizon_us or meter.aggregation == "time_weighted":
                meter.samples.setdefault(name, row)
        names = PeriodNames(periods)
        rows = []
        for tenant, meter_id in sorted(touched):
            meter = self._meters[tenant, meter_id]
            after = _totals(tenant, meter, names)
            rows += changed_rows(tenant, meter_id, meter.told.items(), after.items())
            meter.told = after
        return rows

    def commit(self, journal_offset: int) -> None:
        """Remember how far the book reaches."""
        self.journal_offset = journal_offset

    def forget_before(self, time_us: int) -> None:
        """Drop samples of periods that are over by `time_us` and overlap none that is not; levels are carried over."""
        for meter in self._meters.values():
            oldest_us = min([time_us, *(start for start, end in meter.bounds.values() if end > time_us)])
            over = [end for _, end in meter.bounds.values() if end <= oldest_us]
            meter.horizon_us = max([meter.horizon_us, *over])
            _forget(meter)

    def reset(self) -> None:
        """Throw everything away."""
        self.journal_offset = -1
        self._meters.clear()

    def close(self) -> None:
        """Drop everything."""
        self._meters.clear()
        self.journal_offset = -1


def _totals(tenant: str, meter: _Meter, names: PeriodNames) -> dict[str, Total]:
    inside: dict[str, list[SampleRow]] = defaultdict(list)
    meter.bounds = {}
    for row in meter.samples.values():
        for name, start, end in names.at(tenant, meter.aggregation, row.time_us, meter.horizon_us):
            inside[name].append(row)
            meter.bounds[name] = (start, end)
    if meter.aggregation == "unique":
        return {name: unique_total(len({row.value for row in rows}), len(rows)) for name, rows in inside.items()}
    if meter.aggregation != "time_weighted":
        return {name: number_total(meter.aggregation, list(map(_held, rows))) for name, rows in inside.items()}
    steps = _steps(meter)
    totals = {}
    for name, rows in inside.items():
        start, end = meter.bounds[name]
        carried = sum(meter.base.values()) + sum(by for at, by in steps if at < start)
        levels = Levels(start, carried, at_us=max(row.time_us for row in rows), events=len(rows))
        for at, by in steps:
            if start <= at < end:
                levels.step(at, by)
        totals[name] = levels.total()
    newest_us = max((row.time_us for row in meter.samples.values()), default=None)
    level = sum(meter.base.values()) + sum(by for _, by in steps)
    totals[PRESENT] = present_total(level, newest_us, meter.horizon_us)
    return totals


def _held(row: SampleRow) -> Held:
    return Held(row.time_us, row.offset, row.index, int(row.value))


def _steps(meter: _Meter) -> list[tuple[int, int]]:
    """Return (time, step) of each sample: by how much it moves its series' level."""
    levels = dict(meter.base)
    steps = []
    for row in sorted(meter.samples.values(), key=_held):
        value = int(row.value)
        steps.append((row.time_us, value - levels.get(row.dimensions, 0)))
        levels[row.dimensions] = value
    return steps


def _forget(meter: _Meter) -> None:
    """Drop what lies before the horizon; a series of levels keeps its last sample there, and the level before that."""
    newest: dict[tuple[str, ...], tuple[Held, SampleName]] = {}
    for name, row in sorted(meter.samples.items(), key=lambda item: _held_or_first(meter, item[1])):
        if row.time_us >= meter.horizon_us:
            continue
        if meter.aggregation == "time_weighted":
            before = newest.get(row.dimensions)
            newest[row.dimensions] = (_held(row), name)
            if before is None:
                continue
            meter.base[row.dimensions] = before[0].value
            name = before[1]
        del meter.samples[name]
    for period in [period for period, (start, _) in meter.bounds.items() if start < meter.horizon_us]:
        del meter.bounds[period]
        meter.told.pop(period, None)


def _held_or_first(meter: _Meter, row: SampleRow) -> Held:
    return _held(row) if meter.aggregation == "time_weighted" else Held(row.time_us, row.offset, row.index, 0)
