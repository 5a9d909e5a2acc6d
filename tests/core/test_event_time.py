"""Event times: exact to the microsecond, cut and not rounded, refused without a zone."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.event_time import format_event_time, parse_event_time, parse_unix_time, to_datetime, to_microseconds

EARLIEST, LATEST = (to_microseconds(datetime(year, 1, 1, tzinfo=UTC)) for year in (1, 9999))
AWARE = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2999, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@given(AWARE)
def test_any_rfc3339_text_is_read_back_exactly(instant):
    assert parse_event_time(instant.isoformat()) == to_microseconds(instant)


@given(AWARE)
def test_zulu_form_gives_the_same_on_first_and_later_sight(instant):
    text = instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    first, again = parse_event_time(text), parse_event_time(text)
    assert first == again == to_microseconds(instant)
    assert to_datetime(first) == instant


@pytest.mark.parametrize("fraction", ["9999999", "999999999", "9999995"])
def test_fractions_are_cut_so_that_an_event_stays_in_its_minute(fraction):
    minute = to_microseconds(datetime(2023, 11, 16, 18, 17, tzinfo=UTC))
    for _ in range(2):  # the second call takes the cached way
        assert parse_event_time(f"2023-11-16T18:17:59.{fraction}Z") == minute + 59_999_999


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("2023-11-16T18:17:03", "time_without_zone"),
        ("2023-11-16 18:17:03.97", "time_without_zone"),
        ("", "invalid_time"),
        ("Z", "invalid_time"),
        ("yesterday", "invalid_time"),
        ("2023-02-29T00:00:00Z", "invalid_time"),
        ("2023-11-16T24:00:00Z", "invalid_time"),
        ("2023-11-16T23:59:60Z", "invalid_time"),
        ("2023-11-16T18:17:03.Z", "invalid_time"),
        ("2023-11-16T18:17:03.1234567890Z", "invalid_time"),
        ("2023-11-16T18:17:03.१२Z", "invalid_time"),
        ("2023-11-16T18:17:03+25:00", "invalid_time"),
        ("20231116T181703Z", "invalid_time"),
        ("1700158623", "invalid_time"),
        ("0001-01-01T00:00:00+23:59", None),
    ],
)
def test_anything_else_is_refused_with_its_code(text, code):
    parse_event_time("2023-11-16T18:17:00Z")  # the minute is known, so the fast way is tried too
    found = parse_event_time(text)
    assert found == code if code else isinstance(found, (int, str))


@given(st.integers(EARLIEST, LATEST))
def test_an_instants_text_is_read_back_exactly(microseconds):
    assert parse_event_time(format_event_time(microseconds)) == microseconds


@given(st.integers(EARLIEST, LATEST))
def test_unix_seconds_are_exact_as_number_and_text(microseconds):
    seconds = Decimal(microseconds).scaleb(-6)
    assert parse_unix_time(seconds) == parse_unix_time(f"{seconds:f}") == microseconds
    if microseconds % 1_000_000 == 0:
        assert parse_unix_time(microseconds // 1_000_000) == microseconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("1700158679.9999999"), 1_700_158_679_999_999),  # cut: the next second is another window
        ("1700158679.999999999999", 1_700_158_679_999_999),
        (Decimal("-0.0000001"), -1),
        (Decimal("-1.5"), -1_500_000),
        ("0", 0),
        (Decimal("1.7E9"), 1_700_000_000_000_000),
        (True, "invalid_time"),
        (None, "invalid_time"),
        (1.5, "invalid_time"),  # no float is ever read
        ("", "invalid_time"),
        ("1e9", "invalid_time"),
        ("１７", "invalid_time"),
        (" 1", "invalid_time"),
        ("2023-11-16T18:17:03Z", "invalid_time"),
        (Decimal("NaN"), "invalid_time"),
        (Decimal("Infinity"), "invalid_time"),
        (Decimal("1E+400"), "invalid_time"),
        (Decimal("1E-400"), "invalid_time"),
        (10**400, "invalid_time"),
        ({}, "invalid_time"),
    ],
)
def test_unix_seconds_are_read_or_refused(value, expected):
    assert parse_unix_time(value) == expected


@pytest.mark.parametrize("microseconds", [-(10**18), 10**18])
def test_an_instant_without_a_text_is_refused(microseconds):
    with pytest.raises(ValueError, match="9999"):
        format_event_time(microseconds)
