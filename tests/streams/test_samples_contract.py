"""The sample book's contract, on memory and on SQLite: whatever comes in whatever order, totals are the oracle's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.calendar import Calendar
from core.event_time import to_datetime
from core.journal import PRESENT, PeriodRow, SampleRow
from core.meters import Aggregation, Meter, Registry
from core.period import Period
from core.time_weighted import area_until, quantity_of_area
from streams.adapters.sample_book import forget
from streams.adapters.sqlite_samples import SqliteSamples
from streams.domain.live_periods import LivePeriods
from streams.domain.memory_samples import MemorySamples
from streams.ports import PeriodsOf, SampleBook
from tests.streams.sample_oracle import UNIT, Answer, OracleZone, answers, live, us

SAMPLED: tuple[Aggregation, ...] = ("unique", "max", "min", "latest", "time_weighted")
DIMENSIONS = [("eu", "a"), ("eu", "b"), ("", "a")]
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
ZONES = {
    "acme": ("UTC", 1),
    "berlin": ("Europe/Berlin", 15),
    "nepal": ("Asia/Kathmandu", 28),
}


def periods_of(zones: dict[str, tuple[str, int]]) -> LivePeriods:
    meters = [
        Meter(name, "u", "t", name, "v", ("region", "disk"), weight_per="month" if name == "time_weighted" else None)
        for name in SAMPLED
    ]
    calendars = {tenant: Calendar(*zone) for tenant, zone in zones.items()}
    return LivePeriods(Registry.of(zones, meters, calendars))


PERIODS = periods_of(ZONES)


def sample(
    meter: str,
    value: int | str,
    at: int | str,
    offset: int,
    *,
    index: int = -1,
    tenant: str = "acme",
    dimensions: tuple[str, ...] = DIMENSIONS[0],
    removed: bool = False,
) -> SampleRow:
    """Return a sample; a whole number counts in units."""
    time_us = us(at) if isinstance(at, str) else at
    text = str(value * UNIT) if isinstance(value, int) else value
    return SampleRow(tenant, meter, dimensions, time_us, text, offset, index, removed)


def taken(row: SampleRow) -> SampleRow:
    return SampleRow(row.tenant, row.meter, row.dimensions, row.time_us, row.value, row.offset, row.index, True)


class Shelf:
    """Opens books of one kind; a book that is opened again is brought up to the journal as a worker does it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._path = folder / "samples-0.db"
        self._open: SampleBook | None = None
        self.journal: list[Sequence[SampleRow]] = []

    def open(self) -> SampleBook:
        if self._open is not None:
            self._open.close()
        self._open = MemorySamples() if self.kind == "memory" else SqliteSamples(self._path)
        return self._open

    def reopen(self, periods: PeriodsOf = PERIODS) -> SampleBook:
        book = self.open()
        for offset, rows in enumerate(self.journal):
            if offset > book.journal_offset:
                book.apply(rows, periods)
        return book

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


@pytest.fixture(params=["memory", "sqlite"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(request.param, tmp_path)
    yield shelf
    shelf.close()


@pytest.fixture
def book(shelf: Shelf) -> SampleBook:
    return shelf.open()


Told = dict[tuple[str, str, str], Answer]


def told_by(rows: Sequence[PeriodRow], told: Told) -> None:
    """Take rows over as a sink does: the newest row of a period holds, one without events says nothing."""
    for row in rows:
        assert row.segment == 0
        key = (row.tenant, row.meter, row.period)
        answer = (int(row.quantity), row.events, int(row.level), row.at_us)
        assert answer != told.get(key, (0, 0, 0, 0)), f"{row} did not change"
        if row.events:
            told[key] = answer
        else:
            assert answer == (0, 0, 0, 0)
            del told[key]


def expected(rows: Sequence[SampleRow], zones: dict[str, tuple[str, int]] = ZONES) -> Told:
    told: Told = {}
    for tenant, zone in zones.items():
        for meter in SAMPLED:
            mine = live(row for row in rows if (row.tenant, row.meter) == (tenant, meter))
            for name, answer in answers(meter, mine, OracleZone(*zone)).items():
                told[tenant, meter, name] = answer
    return told


# Around the end of October: a month's border, the end of summer time in Berlin, billing periods on the 28th.
TIMES = st.one_of(
    st.sampled_from(
        [
            us("2026-10-24T23:59:59.999999+00:00"),
            us("2026-10-25T00:30:00+00:00"),
            us("2026-10-25T01:30:00+00:00"),
            us("2026-10-27T18:15:00+00:00"),
            us("2026-10-31T23:00:00+00:00"),
            us("2026-11-01T00:00:00+00:00"),
            us("2026-12-31T23:00:00+00:00"),
        ]
    ),
    st.integers(us("2026-10-10T00:00:00+00:00"), us("2027-01-20T00:00:00+00:00")),
)


@st.composite
def histories(draw: st.DrawFn) -> list[list[SampleRow]]:
    """Batches of samples in any order of time; some are taken out again, some come twice, some taken out never came."""
    # Few meters and tenants at a time, so that samples meet.
    meters = draw(st.lists(st.sampled_from(SAMPLED), min_size=1, max_size=2, unique=True))
    tenants = draw(st.lists(st.sampled_from(sorted(ZONES)), min_size=1, max_size=2, unique=True))
    batches: list[list[SampleRow]] = []
    given_out: list[SampleRow] = []
    offset = 0
    for _ in range(draw(st.integers(1, 5))):
        batch: list[SampleRow] = []
        for _ in range(draw(st.integers(1, 10))):
            action = draw(st.sampled_from(["put", "put", "put", "put", "take", "again", "never"]))
            if action == "put" or not given_out:
                offset += draw(st.integers(0, 3))
                meter = draw(st.sampled_from(meters))
                value = draw(st.sampled_from("abc")) if meter == "unique" else draw(st.sampled_from([0, 1, 2, 10**14]))
                row = sample(
                    meter,
                    value,
                    draw(TIMES),
                    offset,
                    index=len(given_out),
                    tenant=draw(st.sampled_from(tenants)),
                    dimensions=draw(st.sampled_from(DIMENSIONS)),
                )
                given_out.append(row)
                batch.append(row)
            else:
                row = draw(st.sampled_from(given_out))
                if action == "take":
                    batch.append(taken(row))
                elif action == "again":
                    batch.append(row)
                else:
                    batch.append(sample(row.meter, row.value, row.time_us, 9_000, tenant=row.tenant, removed=True))
        batches.append(batch)
    return batches


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), batches=histories())
def test_whatever_comes_totals_are_those_of_the_oracle(
    kind: str, data: st.DataObject, batches: list[list[SampleRow]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shelf = Shelf(kind, tmp_path_factory.mktemp("book"))
    book = shelf.open()
    told: Told = {}
    applied: list[SampleRow] = []
    for number, batch in enumerate(batches):
        told_by(book.apply(batch, PERIODS), told)
        applied += batch
        shelf.journal.append(batch)
        assert told == expected(applied)
        if data.draw(st.booleans(), label="commit"):
            book.commit(number)
        if data.draw(st.booleans(), label="die"):
            book = shelf.reopen()
    shelf.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=histories(), horizon=st.integers(us("2026-10-10T00:00:00+00:00"), us("2027-01-01T00:00:00+00:00")))
def test_periods_after_what_was_forgotten_stay_exact(
    kind: str,
    batches: list[list[SampleRow]],
    horizon: int,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch_module: pytest.MonkeyPatch,
) -> None:
    """What was forgotten was live before; corrections come only for what is still live."""
    shelf = Shelf(kind, tmp_path_factory.mktemp("book"))
    book = shelf.open()
    told: Told = {}
    told_by(book.apply(batches[0], PERIODS), told)
    applied = list(batches[0])
    for batch in batches[1:]:
        book.forget_before(horizon)
        book.forget_before(horizon)
        still = [row for row in batch if row.time_us >= horizon]
        told_by(book.apply(still, PERIODS), told)
        applied += still
        for key, answer in expected(applied).items():
            tenant, _, name = key
            # Taking out the last level before the horizon is told below; here every such level stays.
            if name == PRESENT or PERIODS.bounds(tenant, name)[0] >= horizon:
                assert told.get(key) == answer, key
    shelf.close()


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forget, "SAMPLES_AT_ONCE", 2)
        yield patch


def row_of(rows: Sequence[PeriodRow], period: str) -> PeriodRow:
    found = [row for row in rows if row.period == period]
    assert len(found) == 1, rows
    return found[0]


def test_nothing_comes_of_nothing(book: SampleBook) -> None:
    assert book.journal_offset == -1
    assert book.apply([], PERIODS) == []


def test_a_sample_that_comes_twice_counts_once(book: SampleBook) -> None:
    row = sample("max", 5, "2026-10-03T10:00:00+00:00", 7)
    assert [found.events for found in book.apply([row, row], PERIODS)] == [1, 1]
    assert book.apply([row], PERIODS) == []


def test_taking_out_what_is_not_there_changes_nothing(book: SampleBook) -> None:
    row = sample("max", 5, "2026-10-03T10:00:00+00:00", 7)
    book.apply([row], PERIODS)
    for meter in SAMPLED:
        value = "x" if meter == "unique" else 5
        assert book.apply([sample(meter, value, "2026-10-03T10:00:00+00:00", 8, removed=True)], PERIODS) == []


def test_put_in_and_taken_out_at_once_leaves_nothing(book: SampleBook) -> None:
    row = sample("max", 5, "2026-10-03T10:00:00+00:00", 7)
    assert book.apply([row, taken(row)], PERIODS) == []


def test_a_period_that_lost_its_last_sample_is_empty(book: SampleBook) -> None:
    row = sample("latest", 5, "2026-10-03T10:00:00+00:00", 7)
    book.apply([row], PERIODS)
    assert book.apply([taken(row)], PERIODS) == [
        PeriodRow("acme", "latest", "2026-10", 0, "0", 0),
        PeriodRow("acme", "latest", "2026-10-03T10", 0, "0", 0),
    ]


def test_seats_count_each_user_once_however_often_and_wherever(book: SampleBook) -> None:
    """Seats: ana twice in October and again in November, ben once: 2 in October, 1 in November, 2 in the year."""
    rows = [
        sample("unique", "ana", "2026-10-03T10:00:00+00:00", 1),
        sample("unique", "ana", "2026-10-09T10:00:00+00:00", 2, dimensions=DIMENSIONS[1]),
        sample("unique", "ben", "2026-10-03T10:30:00+00:00", 3),
        sample("unique", "ana", "2026-11-01T00:00:00+00:00", 4),
    ]
    told = book.apply(rows, PERIODS)
    assert {row.period: (int(row.quantity) // UNIT, row.events) for row in told} == {
        "2026": (2, 4),
        "2026-10": (2, 3),
        "2026-10-03T10": (2, 2),
        "2026-10-09T10": (1, 1),
        "2026-11": (1, 1),
        "2026-11-01T00": (1, 1),
    }
    # Ana's first day was a mistake: she is still there on the 9th, so only that hour loses her.
    told = book.apply([taken(rows[0])], PERIODS)
    assert {row.period: (int(row.quantity) // UNIT, row.events) for row in told} == {
        "2026": (2, 3),
        "2026-10": (2, 2),
        "2026-10-03T10": (1, 1),
    }


def test_a_peak_that_was_a_mistake_gives_way_to_the_second(book: SampleBook) -> None:
    """Peak: 70 at 10:00, 90 at 11:00, 90 again at 12:00. Without the first 90 it was reached at 12:00, then 70."""
    peak = sample("max", 90, "2026-10-03T11:00:00+00:00", 2)
    again = sample("max", 90, "2026-10-03T12:00:00+00:00", 3)
    told = book.apply([sample("max", 70, "2026-10-03T10:00:00+00:00", 1), peak, again], PERIODS)
    assert row_of(told, "2026-10").at_us == peak.time_us
    told = book.apply([taken(peak)], PERIODS)
    assert row_of(told, "2026-10") == PeriodRow("acme", "max", "2026-10", 0, str(90 * UNIT), 2, "0", again.time_us)
    told = book.apply([taken(again)], PERIODS)
    assert row_of(told, "2026-10").quantity == str(70 * UNIT)


def test_of_two_latest_at_one_instant_the_greater_place_holds(book: SampleBook) -> None:
    at = "2026-10-03T10:00:00+00:00"
    book.apply([sample("latest", 1, at, 5, index=1), sample("latest", 2, at, 5, index=3)], PERIODS)
    told = book.apply([sample("latest", 3, at, 5, index=2), sample("latest", 4, at, 4)], PERIODS)
    assert {row.quantity for row in told} == {str(2 * UNIT)}


def test_gigabyte_months_of_resizes_over_a_month_with_a_longer_day(tmp_path: Path) -> None:
    """Berlin's October 2026 has 31 days and 1 hour = 745 hours, for the clocks go back on the 25th.

    A disk of 100 GB from 20 September, resized to 300 GB on 25 October 00:00 local (2 a.m. occurs twice that day), a
    second disk of 50 GB from 1 November 00:00 local.
    October: 100 GB x 24 d x 24 h + 300 GB x (7 d x 24 h + 1 h) = 57,600 + 50,700 = 108,300 GB-hours,
    / 745 = 145.369127516778... GB-months.
    """
    zones = {"acme": ("Europe/Berlin", 1)}
    periods = periods_of(zones)
    for book in (MemorySamples(), SqliteSamples(tmp_path / "samples-0.db")):
        told = book.apply(
            [
                sample("time_weighted", 100, "2026-09-20T00:00:00+02:00", 1),
                sample("time_weighted", 300, "2026-10-25T00:00:00+02:00", 2),
                sample("time_weighted", 50, "2026-11-01T00:00:00+01:00", 3, dimensions=DIMENSIONS[1]),
            ],
            periods,
        )
        october = row_of(told, "2026-10")
        bounds = periods.bounds("acme", "2026-10")
        assert bounds[1] - bounds[0] == 745 * HOUR_US
        area = area_until(int(october.quantity), int(october.level), october.at_us, bounds[1])
        assert area == 108_300 * UNIT * HOUR_US
        month = Period(*map(to_datetime, bounds))
        assert quantity_of_area(area, "month", month) == 145_369127516779
        # Nothing has passed in November yet, and both disks hold from its first instant on.
        november = row_of(told, "2026-11")
        assert (november.quantity, november.level, november.at_us) == ("0", str(350 * UNIT), bounds[1])
        assert row_of(told, PRESENT) == PeriodRow(
            "acme", "time_weighted", PRESENT, 0, "0", 1, str(350 * UNIT), bounds[1]
        )
        book.close()


def test_a_late_resize_changes_the_periods_it_reaches_into_and_no_other(book: SampleBook) -> None:
    """10 GB at 08:00, 20 at 10:00, 40 at 12:30. A forgotten resize to 15 at 09:00 holds until 10:00.

    Hour 9 gets its first event (area 0 until 09:00, level 15), hour 10 is as it was: 20 since its start, and so is 12.
    October until 12:30: 10 x 1 h + 15 x 1 h + 20 x 2.5 h = 75 GB-hours, not 70.
    """
    rows = [
        sample("time_weighted", 10, "2026-10-03T08:00:00+00:00", 1),
        sample("time_weighted", 20, "2026-10-03T10:00:00+00:00", 2),
        sample("time_weighted", 40, "2026-10-03T12:30:00+00:00", 3),
    ]
    told = book.apply(rows, PERIODS)
    assert row_of(told, "2026-10").quantity == str(70 * UNIT * HOUR_US)
    assert row_of(told, "2026-10-03T12").quantity == str(20 * UNIT * HOUR_US // 2)
    told = book.apply([sample("time_weighted", 15, "2026-10-03T09:00:00+00:00", 4)], PERIODS)
    assert {row.period: (row.quantity, row.events, row.level) for row in told} == {
        "2026-10": (str(75 * UNIT * HOUR_US), 4, str(40 * UNIT)),
        "2026-10-03T09": ("0", 1, str(15 * UNIT)),
    }
    # Without the resize at 10:00, 15 GB carry into hour 12: 15 x 0.5 h, and 10 + 15 x 3.5 h = 62.5 in October.
    told = book.apply([taken(rows[1])], PERIODS)
    assert {row.period: (row.quantity, row.events) for row in told} == {
        "2026-10": (str(125 * UNIT * HOUR_US // 2), 3),
        "2026-10-03T10": ("0", 0),
        "2026-10-03T12": (str(15 * UNIT * HOUR_US // 2), 1),
    }


def test_a_level_set_long_ago_still_holds_after_its_sample_was_forgotten(book: SampleBook) -> None:
    first = sample("time_weighted", 10, "2026-05-01T00:00:00+00:00", 1)
    second = sample("time_weighted", 30, "2026-06-01T00:00:00+00:00", 2)
    book.apply([first, second, sample("time_weighted", 5, "2026-06-02T00:00:00+00:00", 3, dimensions=("b",))], PERIODS)
    for day in range(3):
        book.forget_before(us("2026-10-01T00:00:00+00:00") + day * DAY_US)
    told = book.apply([sample("time_weighted", 1, "2026-10-10T00:00:00+00:00", 4, dimensions=("c",))], PERIODS)
    # 35 GB held from 1 to 10 October: 35 x 9 d.
    assert row_of(told, "2026-10").quantity == str(35 * UNIT * 9 * DAY_US)
    # The resize to 30 is taken out: the 10 before it are known, though that sample is gone. 15 x 9 d; 10 + 5 + 1 now.
    told = book.apply([taken(second)], PERIODS)
    assert row_of(told, "2026-10").quantity == str(15 * UNIT * 9 * DAY_US)
    assert row_of(told, PRESENT).level == str(16 * UNIT)


def test_a_year_counts_a_user_of_january_in_december(book: SampleBook) -> None:
    book.apply([sample("unique", "ana", "2026-01-05T00:00:00+00:00", 1)], PERIODS)
    for day in range(5):
        book.forget_before(us("2026-10-01T00:00:00+00:00") + day * DAY_US)
    told = book.apply(
        [
            sample("unique", "ana", "2026-12-05T00:00:00+00:00", 2),
            sample("unique", "ben", "2026-12-05T00:00:00+00:00", 3),
        ],
        PERIODS,
    )
    assert row_of(told, "2026").quantity == str(2 * UNIT)


def test_a_period_of_which_samples_are_forgotten_is_not_told_again(book: SampleBook) -> None:
    """A peak of 90 in May is forgotten, so a 5 that comes too late must not become May's peak."""
    book.apply([sample("max", 90, "2026-05-01T00:00:00+00:00", 1)], PERIODS)
    book.forget_before(us("2026-10-01T00:00:00+00:00"))
    assert book.apply([sample("max", 5, "2026-05-02T00:00:00+00:00", 2)], PERIODS) == []


def test_other_bounds_of_a_month_count_it_again(book: SampleBook) -> None:
    """A tenant moves from UTC to Tokyo: the evening of 30 September (UTC) is October there, that of 31 is November."""
    rows = [
        sample(meter, "ana" if meter == "unique" else 5, at, offset)
        for meter in SAMPLED
        for offset, at in enumerate(["2026-09-30T20:00:00+00:00", "2026-10-05T00:00:00+00:00"])
    ]
    told: Told = {}
    told_by(book.apply(rows, PERIODS), told)
    zones = ZONES | {"acme": ("Asia/Tokyo", 1)}
    more = [sample(meter, "ben" if meter == "unique" else 9, "2026-10-07T00:00:00+00:00", 9) for meter in SAMPLED]
    told_by(book.apply(more, periods_of(zones)), told)
    wanted = expected(rows + more, zones)
    for meter in SAMPLED:
        assert told["acme", meter, "2026-10"] == wanted["acme", meter, "2026-10"]
        assert told["acme", meter, "2026-10"][1] == 3


def test_what_was_not_committed_is_gone_and_the_offset_says_where_to_go_on(shelf: Shelf) -> None:
    book = shelf.open()
    first = [sample("max", 5, "2026-10-03T10:00:00+00:00", 1)]
    second = [sample("max", 9, "2026-10-03T10:00:00+00:00", 2)]
    told = book.apply(first, PERIODS)
    book.commit(0)
    assert book.journal_offset == 0
    shelf.journal.append(first)
    book.apply(second, PERIODS)
    book = shelf.reopen()
    assert row_of(told, "2026-10").events == 1
    assert row_of(book.apply(second, PERIODS), "2026-10").events == 2
    assert row_of(book.apply([taken(second[0])], PERIODS), "2026-10").quantity == str(5 * UNIT)


def test_a_book_of_another_journal_begins_anew(shelf: Shelf) -> None:
    book = shelf.open()
    book.apply([sample("max", 9, "2026-10-03T10:00:00+00:00", 1)], PERIODS)
    book.commit(7)
    book.reset()
    assert book.journal_offset == -1
    assert row_of(book.apply([sample("max", 5, "2026-10-03T10:00:00+00:00", 1)], PERIODS), "2026-10").events == 1
    book.commit(0)
    assert shelf.open().journal_offset == (0 if shelf.kind == "sqlite" else -1)
