"""What a sample book must say, computed apart: by brute force over the live samples, and without the product's code."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from core.journal import SampleRow

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNIT = 10**12
# (quantity, events, level, at_us)
Answer = tuple[int, int, int, int]


def us(text: str) -> int:
    """Return `2026-10-01T00:00Z` as microseconds since 1970 UTC."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


class OracleZone:
    """Names and bounds of a zone's periods, from wall clocks alone; billing periods begin on `anchor` (at most 28)."""

    def __init__(self, zone: str, anchor: int) -> None:
        self.zone = ZoneInfo(zone)
        self.anchor = anchor

    def periods(self, time_us: int, with_year: bool) -> dict[str, tuple[int, int]]:
        instant = EPOCH + timedelta(microseconds=time_us)
        local = instant.astimezone(self.zone)
        hour = instant.replace(minute=0, second=0, microsecond=0)
        found = {hour.strftime("%Y-%m-%dT%H"): (self._us(hour), self._us(hour + timedelta(hours=1)))}
        found[local.strftime("%Y-%m")] = self._month(local.year, local.month, 1)
        if self.anchor != 1:
            year, month = local.year, local.month
            if local.day < self.anchor:
                year, month = (year, month - 1) if month > 1 else (year - 1, 12)
            found[f"{year:04}-{month:02}-{self.anchor:02}"] = self._month(year, month, self.anchor)
        if with_year:
            found[str(local.year)] = (self._start(local.year, 1, 1), self._start(local.year + 1, 1, 1))
        return found

    def _month(self, year: int, month: int, day: int) -> tuple[int, int]:
        after = (year, month + 1) if month < 12 else (year + 1, 1)
        return self._start(year, month, day), self._start(*after, day)

    def _start(self, year: int, month: int, day: int) -> int:
        return self._us(datetime(year, month, day, tzinfo=self.zone))

    @staticmethod
    def _us(instant: datetime) -> int:
        return (instant.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def live(rows: Iterable[SampleRow]) -> list[SampleRow]:
    """Return what is left after rows were put in and taken out in order, by (time, offset, index)."""
    kept: dict[tuple[object, ...], SampleRow] = {}
    for row in rows:
        name = (row.tenant, row.meter, row.dimensions, row.offset, row.index)
        if row.removed:
            kept.pop(name, None)
        else:
            kept.setdefault(name, row)
    return sorted(kept.values(), key=lambda row: (row.time_us, row.offset, row.index))


def answers(aggregation: str, samples: list[SampleRow], zone: OracleZone) -> dict[str, Answer]:
    """Return every period's answer for one tenant's meter; samples as `live` returns them."""
    bounds: dict[str, tuple[int, int]] = {}
    for row in samples:
        bounds |= zone.periods(row.time_us, aggregation == "unique")
    found = {}
    for name, (start, end) in bounds.items():
        inside = [row for row in samples if start <= row.time_us < end]
        found[name] = _answer(aggregation, samples, inside, start)
    if aggregation == "time_weighted" and samples:
        found["now"] = (0, 1, sum(_levels(samples).values()), samples[-1].time_us)
    return found


def _answer(aggregation: str, samples: list[SampleRow], inside: list[SampleRow], start: int) -> Answer:
    values = [int(row.value) for row in inside] if aggregation != "unique" else []
    if aggregation == "unique":
        return len({row.value for row in inside}) * UNIT, len(inside), 0, 0
    if aggregation == "latest":
        return values[-1], len(inside), 0, inside[-1].time_us
    if aggregation in ("max", "min"):
        best = max(values) if aggregation == "max" else min(values)
        return best, len(inside), 0, next(row.time_us for row in inside if int(row.value) == best)
    end = inside[-1].time_us
    area = sum(
        _series_area([row for row in samples if row.dimensions == series], start, end)
        for series in {row.dimensions for row in samples}
    )
    return area, len(inside), sum(_levels([row for row in samples if row.time_us <= end]).values()), end


def _levels(samples: list[SampleRow]) -> dict[tuple[str, ...], int]:
    return {row.dimensions: int(row.value) for row in samples}


def _series_area(samples: list[SampleRow], start: int, end: int) -> int:
    """Integrate one series piece by piece."""
    area = 0
    for row, following in zip(samples, [*samples[1:], None], strict=True):
        until = end if following is None else min(end, following.time_us)
        since = max(start, row.time_us)
        if until > since:
            area += int(row.value) * (until - since)
    return area
