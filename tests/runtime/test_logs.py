"""Logs: one JSON line per event on standard error, from our code and from libraries, with the process's name."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

_PROGRAM = """
import logging, structlog, threading
from runtime.logs import configure_logs
from runtime.settings import load_settings

configure_logs(load_settings(log_level="INFO", log_json={json}), "meter")
log = structlog.get_logger()
log.info("ours", partition=3, text="zwei\\nZeilen", tenant="größe")
log.debug("never shown")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
logging.getLogger("some.library").warning("theirs %s", "formatted")
threading.Thread(target=lambda: logging.getLogger("a.thread").error("from a thread")).start()
logging.getLogger("aiokafka.consumer").info("noise")
logging.getLogger("aiokafka.consumer").warning("a library's trouble")
logging.getLogger("aiokafka.producer.sender").warning("Got error produce response on topic-partition %s, retrying. "
    "Error: %s", "t", "<class 'aiokafka.errors.NotEnoughReplicasError'>")
logging.getLogger("aiokafka.producer.sender").warning("Got error produce response on topic-partition %s, retrying. "
    "Error: %s", "t", "<class 'aiokafka.errors.RequestTimedOutError'>")
"""


def run(as_json: bool) -> str:
    program = _PROGRAM.replace("{json}", str(as_json))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    return ran.stderr


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(as_json=True).splitlines()]


def test_every_line_is_json_with_time_level_and_event(lines: list[dict[str, Any]]) -> None:
    assert [line["event"].split(" on ")[0] for line in lines] == [
        "ours", "failed", "theirs formatted", "from a thread", "a library's trouble", "Got error produce response",
    ]  # fmt: skip
    for line in lines:
        assert line["timestamp"].endswith("Z")
        assert line["process"] == "meter"
    assert [line["level"] for line in lines] == ["info", "error", "warning", "error", "warning", "warning"]


def test_values_keep_their_kind_and_an_exception_stays_on_its_line(lines: list[dict[str, Any]]) -> None:
    assert (lines[0]["partition"], lines[0]["text"], lines[0]["tenant"]) == (3, "zwei\nZeilen", "größe")
    assert "ZeroDivisionError" in lines[1]["exception"]


def test_what_kafka_4_answers_now_and_then_is_no_warning(lines: list[dict[str, Any]]) -> None:
    assert [line for line in lines if "NotEnoughReplicas" in line["event"]] == []
    assert "RequestTimedOut" in lines[-1]["event"]


def test_people_get_readable_lines() -> None:
    shown = run(as_json=False)
    assert "ours" in shown
    assert "partition=3" in shown
    assert not shown.startswith("{")
