"""Nothing of the core rounds: sums as large as the stores hold come through digit for digit, in any process."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.quantity import format_scaled, unscale

LARGEST = 10**38 - 1


@given(st.integers(0, LARGEST))
@example(LARGEST)
@example(10**28 + 1)
def test_a_scaled_sum_is_shown_exactly(scaled: int) -> None:
    whole, _, fraction = format_scaled(scaled).partition(".")
    assert int(whole) * 10**12 + int(fraction.ljust(12, "0") or 0) == scaled
    assert not fraction.endswith("0")
    assert int(unscale(scaled).scaleb(12)) == scaled


@pytest.mark.parametrize("module", ["core.quantity", "core.journal", "streams.domain.quota_totals"])
def test_importing_any_part_of_the_core_makes_the_process_exact(module: str) -> None:
    code = f"""
import decimal, threading, {module}
def check():
    assert decimal.Decimal(10) ** 38 + decimal.Decimal("0.000000000001") != decimal.Decimal(10) ** 38
    try:
        decimal.Decimal(1) < 1.5
    except decimal.FloatOperation:
        print("exact")
check()
thread = threading.Thread(target=check)
thread.start()
thread.join()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.split() == ["exact", "exact"], ran.stderr


def test_the_scale_of_a_sum_does_not_depend_on_its_size() -> None:
    assert unscale(10**12) == Decimal(1)
    assert format_scaled(10**37 + 1) == "1" + "0" * 25 + ".000000000001"
