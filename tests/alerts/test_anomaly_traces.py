"""How often anomaly alerts ring on real traces, and what they find: bounds around what docs/decisions/0017 states."""

from __future__ import annotations

import pytest

from benchmarks.anomaly_false_alarms import (
    Measured,
    make_office_hours,
    measure,
    read_azure,
    read_llm_clients,
    read_web_log,
)
from tests.shared_data import SHARED_DATA


def share_found(measured: Measured, name: str) -> float:
    found, planted = measured.found[name]
    assert planted >= 40, f"too few places to plant {name}"
    return found / planted


@pytest.mark.shared_data
def test_clients_of_an_llm_service_that_come_and_go() -> None:
    measured = measure(read_llm_clients(SHARED_DATA), plants=60)
    assert measured.windows == 6_702
    # Most of these are true: services that stop. All of them count as false here.
    assert measured.alarms_per_series_day <= 0.1
    assert len({alarm.key[0] for alarm in measured.alarms}) <= 8
    assert share_found(measured, "x30") >= 0.8
    assert share_found(measured, "silence") >= 0.75


@pytest.mark.shared_data
def test_a_web_server_by_path_and_client() -> None:
    measured = measure(read_web_log(SHARED_DATA), plants=60)
    assert measured.windows == 1_798
    assert len(measured.alarms) == 0
    assert share_found(measured, "x30") >= 0.5
    assert share_found(measured, "silence") >= 0.95


@pytest.mark.shared_data
def test_the_bursts_of_an_hour_of_llm_calls_are_usual_for_it() -> None:
    measured = measure(read_azure(SHARED_DATA), plants=0)
    assert measured.windows > 700
    assert len(measured.alarms) == 0


def test_four_weeks_of_made_office_hours() -> None:
    measured = measure(make_office_hours(tenants=16), plants=60)
    assert measured.windows > 9_000
    assert measured.alarms_per_series_day <= 0.005
    assert share_found(measured, "x10") >= 0.7
    assert share_found(measured, "silence") >= 0.95
