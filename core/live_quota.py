"""Live quotas: what they are called in Redis, what a hash of one says, and how parts and periods of one merge.

Owned here because two strangers meet in it: the quota agent writes (`streams`), the reader reads (`quotas`). A hash has
per part (source partition and segment) the fields `q` (quantity, decimal text), `n` (events), `v` (version: journal
offset), for sampled meters also `l` (level) and `t` (when, microseconds since 1970 UTC), beside `a` (the aggregation)
and `at` (received time of the newest, milliseconds).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from core.errors import must_hold
from core.meters import ADDITIVE, Aggregation
from core.quantity import SCALE

FRESHNESS_KEY = "meterbook:freshness"
EPOCH_KEY = "meterbook:quotas:epoch"
# Tenants that have ever reserved anything (a set); the quota agent looks for reserved events of these only.
RESERVING_KEY = "meterbook:reserving"
# Hours are kept this long for rolling windows: the longest month.
HOURS_KEPT = 744


def quota_key(tenant: str, meter: str, period: str) -> str:
    """Return the key of a period's total; all keys of a tenant share a cluster slot."""
    return f"quota:{{{tenant}}}:{meter}:{period}"


def hold_key(tenant: str, part: str) -> str:
    """Return the key of a part of a tenant's reservations (`quotas/adapters/reserve.lua`), in the tenant's slot."""
    return f"hold:{{{tenant}}}:{part}"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a period's total: a segment, or several merged.

    `quantity` is scaled (`core.quantity`); for a time-weighted meter it is the exact area in 10^-12 unit x microseconds
    from the period's start until `at_us`, and `level` (scaled) holds from then on. For `latest`, `at_us` is when.
    """

    quantity: int
    events: int
    level: int = 0
    at_us: int = 0


NOTHING = Part(0, 0)


def read_parts(fields: Mapping[str, str]) -> list[Part]:
    """Return the parts in a quota's hash."""
    return [
        Part(
            parse_scaled(text),
            int(fields.get(f"n{name[1:]}", 0)),
            parse_scaled(fields.get(f"l{name[1:]}", "0")),
            int(fields.get(f"t{name[1:]}", 0)),
        )
        for name, text in fields.items()
        if name[0] == "q"
    ]


def partitions_in(fields: Mapping[str, str]) -> set[str]:
    """Return the source partitions that a quota's hash has parts of."""
    return {name[1:].partition(":")[0] for name in fields if name[0] == "q"}


def parse_scaled(text: str) -> int:
    """Return a plain decimal text ("-0.25") with at most 12 decimal places as a scaled integer."""
    whole, _, decimals = text.partition(".")
    must_hold(len(decimals) <= SCALE, f"more decimal places than a quantity has: {text[:60]!r}")
    return int(whole + decimals.ljust(SCALE, "0"))


def merge_parts(aggregation: Aggregation, parts: Iterable[Part]) -> Part:
    """Return what the parts of one period make together.

    Distinct values of two partitions cannot be told apart: a tenant lives on one partition, so there is only one part.
    A part without events has lost its last sample to a correction and says nothing.
    """
    present = [part for part in parts if part.events or part.quantity or part.level]
    if not present:
        return NOTHING
    if aggregation in ADDITIVE:
        return Part(sum(part.quantity for part in present), sum(part.events for part in present))
    if aggregation == "time_weighted":
        at_us = max(part.at_us for part in present)
        return Part(
            sum(part.quantity + part.level * (at_us - part.at_us) for part in present),
            sum(part.events for part in present),
            sum(part.level for part in present),
            at_us,
        )
    counted = [part for part in present if part.events]
    return merge_sampled(aggregation, counted) if counted else NOTHING


def merge_sampled(aggregation: Aggregation, parts: Sequence[Part]) -> Part:
    """Merge parts with events of a maximum, minimum, latest or unique meter; of the last there may be only one."""
    events = sum(part.events for part in parts)
    if aggregation == "latest":
        newest = max(parts, key=lambda part: part.at_us)
        return Part(newest.quantity, events, newest.level, newest.at_us)
    if aggregation == "unique":
        must_hold(len(parts) == 1, "distinct values are counted in one part: they cannot be added")
        return parts[0]
    found = (max if aggregation == "max" else min)(parts, key=lambda part: part.quantity)
    return Part(found.quantity, events, found.level, found.at_us)


def merge_periods(aggregation: Aggregation, periods: Sequence[Part]) -> Part:
    """Return what neighbouring periods make together, for all aggregations but `unique` and `time_weighted`."""
    must_hold(aggregation not in ("unique", "time_weighted"), f"periods of {aggregation} do not merge")
    return merge_parts(aggregation, periods)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A period of a time-weighted meter, with its part if there was any event: bounds and weight in microseconds.

    The weight is the time that one unit held for is worth 1 (`core.meters.Meter.weight_per`).
    """

    start_us: int
    end_us: int
    weight_us: int
    part: Part | None


def weigh(stretches: Sequence[Stretch], level: int, now_us: int) -> int:
    """Return the scaled quantity of a time-weighted meter over neighbouring periods, up to now.

    `level` (scaled) holds at the start of the first. Exact until the one rounding at the end, half to even.
    """
    total = Fraction(0)
    for stretch in stretches:
        until_us = min(now_us, stretch.end_us)
        if until_us <= stretch.start_us and stretch.part is None:
            break
        if stretch.part is None:
            area = level * (until_us - stretch.start_us)
        else:
            # An event may be dated a little ahead of the clock: its area is counted already.
            area = stretch.part.quantity + stretch.part.level * max(0, until_us - stretch.part.at_us)
            level = stretch.part.level
        total += Fraction(area, stretch.weight_us)
    return round(total)


def quantity_of(aggregation: Aggregation, part: Part) -> int:
    """Return the scaled quantity that a merged part stands for; time-weighted ones are weighed instead."""
    if aggregation == "average":
        return round(Fraction(part.quantity, part.events)) if part.events else 0
    return part.quantity


def weight_us(weight_per: str | None, period_us: int) -> int:
    """Return the weight of a time-weighted meter in microseconds; `month` is the length of the period asked for."""
    if weight_per == "second":
        return 1_000_000
    return 3_600_000_000 if weight_per == "hour" else period_us
