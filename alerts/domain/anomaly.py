"""Unusual usage of one tenant and meter, judged by its own history: jumps, drops, silence. Pure statistics.

Floats are allowed here and nowhere near money: they only decide whether people are told. Every figure that is shown is
an exact total. How the bars were chosen, and what they cost in false alarms, is in docs/decisions/0017.

A window (an hour, in production) is compared with what is usual: the same hour of the week once there are three weeks,
the same hour of the day once there are two days, else the twelve windows before it. It is unusual if it differs by a
multiple, and farther than this series has differed from its usual before, and also farther when the level of the last
half day is taken into account: so a level that has lasted for a while is not told again and again. Differences are
measured in units of one usual event, on a scale where the noise of counts is the same everywhere: small numbers do not
alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, variance
from typing import Literal, NamedTuple

AnomalyKind = Literal["jump", "drop", "silence"]
Usual = Literal["week", "day", "before"]
# What of the past is looked at; where days are compared, not weeks, the newer half is enough.
HISTORY_DAYS = 28
_DAILY_DAYS = 14
# From how many days of history on anything is judged, by the hour of the day, by that of the week.
_HISTORY_DAYS_MIN = 3
_DAY_DAYS_MIN = 2
_WEEK_DAYS_MIN = 21
# Whoever has not yet seen a weekend cannot call it a drop or a silence.
_WHOLE_WEEK = 7
# The level of late: the median of twelve windows.
_RECENT = 12
_SIGMAS = 5.0
# How much farther than ever before (but for one in a hundred) a difference has to be.
_BEYOND_HABIT = 1.5
_HABIT_QUANTILE = 0.99
_JUMP_RATIO = 3.0
_DROP_RATIO = 1 / 4
# How many events more or fewer than usual are worth a message.
_EVENTS_MIN = 30.0
_SILENT_WINDOWS_MIN = 3
_TIMES_LONGEST_GAP = 2
_SILENCE_PROBABILITY = 1e-6
# From how many earlier stretches as long as the silence its likelihood is taken.
_SPANS_MIN = 5
_DAILY_SPANS_MIN = 3
# This share of what is usual, with the noise of so few, counts as nothing: a late evening does not make a weekend busy.
_NEARLY_NOTHING = 0.05
# A little more than Poisson noise: large counts are taken to vary by a seventh (its root) whatever their history.
_DISPERSION = 0.02
_MAD_TO_SIGMA = 1.4826


class Tally(NamedTuple):
    """What was used within one window: the quantity in the meter's unit, and how many events that were."""

    quantity: float
    events: int


@dataclass(frozen=True, slots=True)
class Reference:
    """What is usual: median and spread (one sigma) of `count` earlier windows, or stretches as long as a silence.

    `kind` says which: of the same hour of the week, of the day, or those right before.
    """

    kind: Usual
    count: int
    usual: float
    spread: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An unusual window. `windows` is how many it lasts already, `longest_gap` the longest silence there was before."""

    kind: AnomalyKind
    reference: Reference
    windows: int = 1
    longest_gap: int = 0


def judge(
    history: Sequence[Tally], current: Tally, *, windows_per_day: int, days_min: float = _HISTORY_DAYS_MIN
) -> Anomaly | None:
    """Judge a window by those before it, oldest first and without holes; None if it is as usual or nothing is known.

    What lies before the first usage counts as no history at all. `days_min` is for measurements on short traces.
    """
    first = next((i for i, tally in enumerate(history) if tally.events > 0), len(history))
    known = history[max(first, len(history) - HISTORY_DAYS * windows_per_day) :]
    if len(known) < days_min * windows_per_day:
        return None
    if current.events == 0:
        return _judge_silence(known, windows_per_day)
    return _judge_level(known, current, windows_per_day)


def _judge_level(known: Sequence[Tally], current: Tally, per_day: int) -> Anomaly | None:
    usual_by = _comparable(len(known), per_day)
    past = known if usual_by == "week" else known[-_DAILY_DAYS * per_day :]
    season = 7 * per_day if usual_by == "week" else per_day
    compared = (
        range(len(past) - _RECENT, len(past)) if usual_by == "before" else range(len(past) % season, len(past), season)
    )
    usual = median(past[i].quantity for i in compared)
    if _DROP_RATIO * usual < current.quantity < _JUMP_RATIO * usual:
        # The quick way out for nearly every window.
        return None
    per_event = sum(tally.quantity for tally in past) / max(1, sum(tally.events for tally in past))
    if per_event <= 0:
        return None
    # In units of one usual event: comparable across meters.
    counts = [tally.quantity / per_event for tally in past]
    now = current.quantity / per_event
    kind = _direction(now, usual / per_event)
    if kind is None or (kind == "drop" and usual_by == "day" and len(known) < _WHOLE_WEEK * per_day):
        return None
    if usual_by == "before" and kind == "jump" and now <= _BEYOND_HABIT * _quantile(counts, _HABIT_QUANTILE):
        # Without days to compare with, what comes after a pause is no jump while it is what was used before the pause.
        return None
    levels = [_level(count) for count in (*counts, now)]
    if usual_by == "before":
        unusual = _is_beyond(_without_recent_level(levels), kind)
    else:
        levels = _without_season(levels, season)
        unusual = _is_beyond(levels, kind) and _is_beyond(_without_recent_level(levels), kind, habit=0.0)
    if not unusual:
        return None
    return Anomaly(kind, _describe(usual_by, [past[i].quantity for i in compared]))


def _comparable(windows: int, per_day: int) -> Usual:
    if windows >= _WEEK_DAYS_MIN * per_day:
        return "week"
    return "day" if windows >= _DAY_DAYS_MIN * per_day else "before"


def _direction(now: float, usual: float) -> AnomalyKind | None:
    """Say whether a count is a multiple or a fraction of the usual one, and enough events for a message."""
    if now >= _JUMP_RATIO * usual and now - usual >= _EVENTS_MIN:
        return "jump"
    return "drop" if now <= _DROP_RATIO * usual and usual - now >= _EVENTS_MIN else None


def _level(count: float) -> float:
    """Return a count on the scale on which its noise is about one, whatever the count.

    The variance-stabilising transformation of the negative binomial distribution (Anscombe, Biometrika 35, 1948): like
    a root where counts are small and Poisson noise rules, like a logarithm where they are large and ratios count.
    """
    return 2 / math.sqrt(_DISPERSION) * math.asinh(math.sqrt(_DISPERSION * count))


def _without_season(levels: Sequence[float], season: int) -> list[float]:
    """Return each level less the median of the other windows a season apart; the last is in nobody's median."""
    found = []
    for i, level in enumerate(levels):
        others = [levels[j] for j in range(i % season, len(levels) - 1, season) if j != i]
        found.append(level - median(others) if others else 0.0)
    return found


def _without_recent_level(levels: Sequence[float]) -> list[float]:
    """Return each level less the median of the twelve before it, from the thirteenth on."""
    return [levels[i] - median(levels[i - _RECENT : i]) for i in range(_RECENT, len(levels))]


def _is_beyond(differences: Sequence[float], kind: AnomalyKind, habit: float = _BEYOND_HABIT) -> bool:
    """Say whether the last difference is farther out, in the direction of `kind`, than all before it let expect."""
    *habits, last = differences
    if not habits:
        return False
    sign = 1 if kind == "jump" else -1
    middle = median(habits)
    sigma = _MAD_TO_SIGMA * median(abs(habit - middle) for habit in habits)
    farthest = _quantile([sign * habit for habit in habits], _HABIT_QUANTILE)
    # Counts scatter by one on this scale, however steady they were.
    return sign * last > max(_SIGMAS * max(sigma, 1.0), habit * farthest)


def _describe(kind: Usual, sample: Sequence[float]) -> Reference:
    usual = median(sample)
    return Reference(kind, len(sample), usual, _MAD_TO_SIGMA * median(abs(value - usual) for value in sample))


def _judge_silence(known: Sequence[Tally], per_day: int) -> Anomaly | None:
    """Judge a window without usage, together with those without usage right before it."""
    silent = next((i for i, tally in enumerate(reversed(known)) if tally.events > 0), len(known))
    run, heard = silent + 1, known[: len(known) - silent]
    if run < _SILENT_WINDOWS_MIN or not heard:
        return None
    longest = 0
    if len(heard) >= _WHOLE_WEEK * per_day:
        spans = _same_hours(heard, run, per_day)
        kind: Usual = "day"
        if spans is None or len(spans) < _DAILY_SPANS_MIN:
            return None
    else:
        spans = [heard[i : i + run] for i in range(len(heard) - run, -1, -run)]
        kind, longest = "before", _longest_gap(heard)
        if run <= _TIMES_LONGEST_GAP * longest or len(spans) < _SPANS_MIN:
            return None
    if _probability_of_none([_events(span) for span in spans]) > _SILENCE_PROBABILITY:
        return None
    reference = _describe(kind, [sum(tally.quantity for tally in span) for span in spans])
    return Anomaly("silence", reference, windows=run, longest_gap=longest or _longest_gap(heard))


def _same_hours(heard: Sequence[Tally], run: int, per_day: int) -> list[Sequence[Tally]] | None:
    """Return what was used in these hours on earlier days, newest first; None if it is usual that there is nothing.

    Days without usage are excused where the same weekday of the week before was without it too: a weekend does not make
    a silent Tuesday usual. So is one day of ten, and one of the same weekdays if there are three: an earlier outage.
    """
    spans = {}
    for day in range(1, HISTORY_DAYS + 1):
        begin = len(heard) - day * per_day
        span = heard[begin : begin + run] if begin >= 0 else ()
        if len(span) == run:
            spans[day] = span
    daily = {day: span for day, span in spans.items() if day <= _DAILY_DAYS}
    if not daily:
        return None
    little = _NEARLY_NOTHING * median(_events(span) for span in daily.values())
    little += 3 * math.sqrt(little)
    empty = {day for day, span in spans.items() if _events(span) <= little}
    same_weekday = {day for day in spans if day % 7 == 0}
    if len(same_weekday & empty) > (len(same_weekday) >= _WEEK_DAYS_MIN // 7):
        return None
    knows_weekdays = len(heard) >= _WEEK_DAYS_MIN * per_day
    excused = {day for day in empty if knows_weekdays and (day + 7 in empty or day + 7 not in spans)}
    if len((daily.keys() & empty) - excused - same_weekday) > len(daily) // 10:
        return None
    return [span for day, span in daily.items() if day not in empty]


def _events(span: Sequence[Tally]) -> int:
    return sum(tally.events for tally in span)


def _longest_gap(heard: Sequence[Tally]) -> int:
    """Return the length of the longest stretch without usage between windows with usage."""
    used = [i for i, tally in enumerate(heard) if tally.events > 0]
    return max((after - before - 1 for before, after in pairwise(used)), default=0)


def _probability_of_none(events: Sequence[int]) -> float:
    """Return how likely no event at all is, if counts vary as they did: negative binomial, or Poisson."""
    mean = fmean(events)
    if mean <= 0:
        return 1.0
    excess = variance(events) - mean
    if excess <= 0:
        return math.exp(-mean)
    shape = mean * mean / excess
    return math.exp(shape * math.log(shape / (shape + mean)))


def _quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
