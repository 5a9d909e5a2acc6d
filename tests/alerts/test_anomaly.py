"""What counts as unusual usage, and when it is told again: the rules, without a store."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.domain.anomaly import Anomaly, Reference, Tally, judge
from alerts.domain.episodes import CALM_WINDOWS, Episode, follow
from core.period import Period

START = datetime(2026, 10, 5, tzinfo=UTC)  # a Monday
NOTHING = Tally(0.0, 0)


def tally(events: float) -> Tally:
    return Tally(float(round(events)), round(events))


def steady(days: float, level: float = 1_000, seed: int = 1) -> list[Tally]:
    randomness = random.Random(seed)
    return [tally(max(0.0, randomness.gauss(level, math.sqrt(level)))) for _ in range(round(days * 24))]


def daily(days: int, peak: float = 1_000, *, weekends: float = 1.0, nights: float = 0.1, seed: int = 1) -> list[Tally]:
    """Low at night, high at noon; weekends as a share of the other days."""
    randomness = random.Random(seed)
    series = []
    for hour in range(days * 24):
        wave = max(0.0, math.sin(math.pi * (hour % 24 - 6) / 13)) if 6 <= hour % 24 <= 19 else 0.0
        level = peak * max(wave, nights) * (weekends if hour // 24 % 7 >= 5 else 1.0)
        series.append(tally(max(0.0, randomness.gauss(level, math.sqrt(level)))) if level else NOTHING)
    return series


def kind_of(history: list[Tally], *now: Tally) -> str | None:
    """Judge windows one after the other; returns the last judgement."""
    found = None
    for i, window in enumerate(now):
        found = judge([*history, *now[:i]], window, windows_per_day=24)
    return found.kind if found is not None else None


def test_a_steady_series_alarms_at_a_multiple_and_not_below() -> None:
    history = steady(14)
    assert kind_of(history, tally(1_100)) is None
    assert kind_of(history, tally(2_500)) is None
    assert kind_of(history, tally(5_000)) == "jump"
    assert kind_of(history, tally(100)) == "drop"
    assert kind_of(history, tally(400)) is None


def test_small_numbers_do_not_alarm() -> None:
    history = steady(14, level=2)
    assert kind_of(history, tally(12)) is None
    assert kind_of(history, NOTHING, NOTHING, NOTHING) is None
    assert kind_of(history, tally(60)) == "jump"


def test_nothing_is_said_before_three_days_are_known() -> None:
    assert kind_of(steady(2.9), tally(50_000)) is None
    assert kind_of(steady(3.1), tally(50_000)) == "jump"
    # What lies before the first usage is no history.
    assert kind_of([NOTHING] * 24 * 20 + steady(2.9), tally(50_000)) is None


def test_the_morning_is_no_jump_and_the_evening_no_drop() -> None:
    series = daily(14)
    found = [judge(series[:i], series[i], windows_per_day=24) for i in range(24 * 4, len(series))]
    assert found == [None] * len(found)


def test_the_level_of_noon_is_a_jump_at_night() -> None:
    history = daily(14)[: 13 * 24 + 2]
    assert kind_of(history, tally(1_000)) == "jump"
    found = judge(history, tally(1_000), windows_per_day=24)
    assert found is not None
    assert (found.reference.kind, found.reference.count) == ("day", 13)
    assert 70 < found.reference.usual < 130


def test_a_quiet_weekend_is_usual_and_a_quiet_tuesday_is_not() -> None:
    series = daily(28, weekends=0.05)
    found = [judge(series[:i], series[i], windows_per_day=24) for i in range(24 * 7, len(series))]
    assert found == [None] * len(found)
    tuesday = series[: 22 * 24 + 12]
    assert kind_of(tuesday, tally(20)) == "drop"
    found_ = judge(tuesday, tally(20), windows_per_day=24)
    assert found_ is not None
    assert found_.reference.kind == "week"


def test_a_level_that_lasts_is_told_once_and_not_as_long_as_it_lasts() -> None:
    history, level = steady(14), [tally(8_000)] * 12
    kinds = [kind_of([*history, *level[:i]], level[i]) for i in range(12)]
    assert kinds[0] == "jump"
    assert kinds[-1] is None


def test_a_bursty_series_needs_more_than_its_own_bursts() -> None:
    randomness = random.Random(7)
    history = [tally(randomness.choice([20, 20, 20, 30, 300])) for _ in range(14 * 24)]
    assert kind_of(history, tally(300)) is None
    assert kind_of(history, tally(20_000)) == "jump"


def test_a_pause_and_its_end_are_usual_for_who_comes_and_goes() -> None:
    jobs = ([tally(500)] * 3 + [NOTHING] * 17) * 4
    assert kind_of(jobs[:-17], *[NOTHING] * 30) is None
    assert kind_of(jobs, tally(500)) is None


def test_silence_of_a_steady_series_is_told_after_three_hours() -> None:
    history = steady(14)
    assert kind_of(history, NOTHING, NOTHING) is None
    assert kind_of(history, NOTHING, NOTHING, NOTHING) == "silence"
    found = judge([*history, NOTHING, NOTHING], NOTHING, windows_per_day=24)
    assert found is not None
    assert (found.windows, found.longest_gap, found.reference.kind) == (3, 0, "day")
    assert 2_900 < found.reference.usual < 3_100


def test_a_young_series_is_silent_after_twice_its_longest_pause() -> None:
    history = steady(2.5) + [NOTHING] * 2 + steady(2.5)
    assert kind_of(history, *[NOTHING] * 4) is None
    assert kind_of(history, *[NOTHING] * 5) == "silence"


def test_nights_and_weekends_without_usage_are_no_silence_and_a_morning_is() -> None:
    series = daily(28, weekends=0.0, nights=0.0)
    found = [judge(series[:i], series[i], windows_per_day=24) for i in range(24 * 7, len(series))]
    assert [one for one in found if one is not None] == []
    tuesday = series[: 22 * 24 + 9]
    assert kind_of(tuesday, NOTHING, NOTHING, NOTHING) == "silence"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 10**6)), max_size=120),
    st.tuples(st.floats(0, 1e9), st.integers(0, 10**6)),
)
def test_any_history_is_judged_and_a_usual_scale_of_units_changes_nothing(
    history: list[tuple[float, int]], now: tuple[float, int]
) -> None:
    def scaled(by: float) -> str | None:
        found = judge(
            [Tally(quantity * by, events) for quantity, events in history],
            Tally(now[0] * by, now[1]),
            windows_per_day=24,
            days_min=1,
        )
        return found.kind if found is not None else None

    # Powers of two, so that scaling is exact.
    assert scaled(1.0) == scaled(1_024.0)


# Episodes


def window(index: int) -> Period:
    return Period(START + timedelta(hours=index), START + timedelta(hours=index + 1))


def anomaly(kind: str, windows: int = 1) -> Anomaly:
    return Anomaly(kind, Reference("day", 14, 100.0, 10.0), windows)  # type: ignore[arg-type]


def test_an_episode_is_told_once_and_ends_when_usage_was_calm_for_a_while() -> None:
    begun, going_on = 0, list[Episode]()
    story = (
        [anomaly("jump")] + [None] * (CALM_WINDOWS - 1) + [anomaly("jump")] + [None] * CALM_WINDOWS + [anomaly("jump")]
    )
    for index, judged in enumerate(story):
        followed = follow(going_on, judged, heard=True, window=window(index))
        begun += followed.begun is not None
        known = {one.started_at: one for one in [*going_on, *followed.changed]}
        going_on = [one for one in known.values() if one.ended_at is None]
    assert begun == 2
    assert len(going_on) == 1
    assert going_on[0].started_at == window(len(story) - 1).start


def test_a_silence_begins_where_it_was_first_quiet_and_ends_with_the_first_usage() -> None:
    followed = follow([], anomaly("silence", windows=3), heard=False, window=window(10))
    assert followed.begun is not None
    assert (followed.begun.started_at, followed.begun.last_seen_at) == (window(8).start, window(10).end)
    later = follow([followed.begun], anomaly("silence", windows=4), heard=False, window=window(11))
    assert later.begun is None
    [ended] = follow(list(later.changed), None, heard=True, window=window(12)).changed
    assert ended.ended_at == window(12).start


def test_hours_without_usage_do_not_end_a_drop() -> None:
    drop = Episode("drop", window(0).start, window(0).end, calm_windows=2)
    assert follow([drop], None, heard=False, window=window(1)).changed == ()
    [calmer] = follow([drop], None, heard=True, window=window(1)).changed
    assert calmer.calm_windows == 3


@pytest.mark.parametrize("kind", ["jump", "drop"])
def test_another_kind_is_another_episode(kind: str) -> None:
    silence = Episode("silence", window(0).start, window(2).end)
    followed = follow([silence], anomaly(kind), heard=True, window=window(3))
    assert followed.begun is not None
    assert {one.kind for one in followed.changed} == {"silence", kind}
