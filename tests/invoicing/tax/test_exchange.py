"""Exchange rates: the last published, crossed over the base, frozen once, refused where none is known."""

from __future__ import annotations

import io
import zipfile
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Fault, InvalidInputError
from invoicing.adapters.ecb_rates import load_exchange_rates, read_exchange_rates
from invoicing.domain.exchange import NO_RATES, ExchangeRates, FrozenRate
from tests.shared_data import SHARED_DATA

# As the bank writes it: newest first, N/A where there is none, a comma at the end of every row.
FILE = b"""Date,USD,JPY,BGN,MXN,TRL,
2026-11-20,1.1600,181.05,1.9558,21.3300,N/A,
2026-11-19,1.1550,180.40,1.9558,21.2500,N/A,
2026-11-13,1.1500,,1.9558,21.1000,N/A,
"""
FRIDAY = date(2026, 11, 20)


@pytest.fixture
def rates() -> ExchangeRates:
    return read_exchange_rates(FILE, "eurofxref-hist.csv")


@pytest.mark.parametrize(
    ("source", "target", "on", "rate", "published"),
    [
        ("EUR", "USD", "2026-11-20", "1.1600", "2026-11-20"),
        # 1 / 1.16
        ("USD", "EUR", "2026-11-20", "0.8620689655", "2026-11-20"),
        # Saturday and Sunday: Friday's.
        ("EUR", "USD", "2026-11-22", "1.1600", "2026-11-20"),
        ("EUR", "USD", "2026-11-18", "1.1500", "2026-11-13"),
        # Seven days old at most: on the eighth the file was not kept up.
        ("EUR", "USD", "2026-11-27", "1.1600", "2026-11-20"),
        # 21.33 / 1.16 = 18.387931...
        ("USD", "MXN", "2026-11-20", "18.3879310345", "2026-11-20"),
        # Both of one day: the yen has none of the 13th, and the 19th is not yet.
        ("JPY", "USD", "2026-11-20", "0.0064070699", "2026-11-20"),
        ("USD", "USD", "2026-11-18", "1", "2026-11-18"),
    ],
)
def test_the_rate_of_a_day_is_the_last_published(
    rates: ExchangeRates, source: str, target: str, on: str, rate: str, published: str
) -> None:
    found = rates.rate(source, target, date.fromisoformat(on))
    assert found == (Decimal(rate), date.fromisoformat(published))


@pytest.mark.parametrize(
    ("source", "target", "on"),
    [
        ("EUR", "USD", "2026-11-28"),  # eight days after the last
        ("EUR", "USD", "2026-11-12"),  # before the first
        ("EUR", "JPY", "2026-11-14"),  # not published for the yen
        ("EUR", "CHF", "2026-11-20"),  # no such column
        ("CHF", "USD", "2026-11-20"),
        ("TRL", "USD", "2026-11-20"),  # N/A
    ],
)
def test_where_none_is_known_it_is_refused(rates: ExchangeRates, source: str, target: str, on: str) -> None:
    found = rates.rate(source, target, date.fromisoformat(on))
    assert isinstance(found, Fault)
    assert found.code == "unknown_exchange_rate"


def test_no_file_knows_no_rate() -> None:
    assert isinstance(NO_RATES.rate("USD", "EUR", FRIDAY), Fault)
    assert load_exchange_rates(None) is NO_RATES


def test_the_frozen_rate_keeps_the_tax_rounded_once(rates: ExchangeRates) -> None:
    # 18.81 USD x 0.8620689655 = 16.21551724 -> 16.22 EUR
    frozen = rates.freeze(Decimal("18.81"), "USD", "EUR", FRIDAY)
    assert frozen == FrozenRate("EUR", Decimal("0.8620689655"), FRIDAY, "ECB", Decimal("16.22"))
    # 18.81 USD in yen: 181.05 / 1.16 = 156.0775862069; x 18.81 = 2935.8194 -> 2936
    yen = rates.freeze(Decimal("18.81"), "USD", "JPY", FRIDAY)
    assert isinstance(yen, FrozenRate)
    assert yen.tax == Decimal("2936")


@given(st.decimals("-100000", "100000", places=2), st.sampled_from(["USD", "JPY", "MXN", "EUR"]))
def test_freezing_minus_a_tax_is_minus_the_frozen_tax(tax: Decimal, target: str) -> None:
    known = read_exchange_rates(FILE, "file.csv")
    there, back = known.freeze(tax, "USD", target, FRIDAY), known.freeze(-tax, "USD", target, FRIDAY)
    assert isinstance(there, FrozenRate)
    assert isinstance(back, FrozenRate)
    assert there.tax == -back.tax
    assert there.rate == back.rate


def test_the_banks_own_archive_is_read(tmp_path: Path, rates: ExchangeRates) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("eurofxref-hist.csv", FILE)
    path = tmp_path / "eurofxref-hist.zip"
    path.write_bytes(packed.getvalue())
    assert load_exchange_rates(path) == rates


@pytest.mark.parametrize(
    ("content", "code", "path"),
    [
        (b"", "invalid_csv", "file.csv"),
        (b"Day,USD\n2026-11-20,1.1\n", "invalid_csv", "file.csv"),
        (b"Date,USD\n", "invalid_csv", "file.csv"),
        (b"Date,USD\n2026-11-20,1.1\n2026-11-19", "invalid_csv", "file.csv:3"),
        (b"Date,USD\n20.11.2026,1.1\n", "invalid_date", "file.csv:2"),
        (b"Date,USD\n2026-11-20,1.1\n2026-11-20,1.2\n", "duplicate_date", "file.csv:3"),
        (b"Date,USD\n2026-11-20,-1.1\n", "invalid_rate", "file.csv:2: USD"),
        (b"Date,USD\n2026-11-20,0\n", "invalid_rate", "file.csv:2: USD"),
        (b'Date,USD\n2026-11-20,"1,1"\n', "invalid_rate", "file.csv:2: USD"),
        (b"Date,USD\n2026-11-20,1e3\n", "invalid_rate", "file.csv:2: USD"),
        (b"\xff\xfe\x00", "invalid_csv", "file.csv"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(content: bytes, code: str, path: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_exchange_rates(content, "file.csv")
    assert [(fault.code, fault.path) for fault in refused.value.faults] == [(code, path)]


@given(st.binary(max_size=200))
def test_any_bytes_are_rates_or_refused(content: bytes) -> None:
    try:
        found = read_exchange_rates(content, "file.csv")
    except InvalidInputError:
        return
    assert found.days


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rates.zip"
    path.write_bytes(FILE)
    with pytest.raises(InvalidInputError) as refused:
        load_exchange_rates(path)
    assert refused.value.faults[0].code == "unreadable_file"


@pytest.mark.shared_data
def test_every_day_of_the_banks_three_years_has_a_rate_not_older_than_a_week() -> None:
    known = load_exchange_rates(SHARED_DATA / "currency" / "ecb_eur_rates_2023_2025.csv")
    assert len(known.days) == 766
    day = known.days[0]
    while day <= known.days[-1]:
        for currency in ("USD", "MXN", "GBP", "CHF", "JPY", "CAD", "BRL"):
            found = known.rate(currency, "EUR", day)
            assert not isinstance(found, Fault), f"{currency} on {day}"
            assert found[1] <= day
            assert day - found[1] <= timedelta(days=5)
        day += timedelta(days=1)
