"""The stack's commands as a person and a program meet them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runtime.settings import ENGINES
from runtime.stack import commands
from runtime.stack.errors import UnknownEngineError
from runtime.stack.state import StackState

RUNNER = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("METERBOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("METERBOOK_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _log(home: Path, name: str, text: str) -> None:
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / f"{name}.log").write_text(text)


def test_help_names_the_four_commands() -> None:
    text = RUNNER.invoke(commands.app, ["--help"]).output
    assert all(word in text for word in ("up", "down", "status", "logs"))


def test_status_without_a_stack_says_what_to_do_and_fails(home: Path) -> None:
    result = RUNNER.invoke(commands.app, ["status"])
    assert result.exit_code == 1
    assert "meterbook up" in result.output
    told = RUNNER.invoke(commands.app, ["status", "--json"])
    assert (told.exit_code, json.loads(told.stdout)["engines"]) == (1, [])


def test_down_without_a_stack_is_no_error(home: Path) -> None:
    assert RUNNER.invoke(commands.app, ["down"]).exit_code == 0


def test_up_starts_nothing_when_every_engine_is_external(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {
        "kafka": "broker:9092",
        "clickhouse": "http://ch:8123/m",
        "redis": "redis://r:6379/0",
        "postgres": "postgresql://p/m",
    }
    for name, url in urls.items():
        monkeypatch.setenv(f"METERBOOK_{name.upper()}_URL", url)
    result = RUNNER.invoke(commands.app, ["up"])
    assert result.exit_code == 0, result.output
    assert all(f"{name}: not started, METERBOOK_{name.upper()}_URL is set" in result.output for name in ENGINES)
    assert RUNNER.invoke(commands.app, ["status"]).exit_code == 0


def test_logs_show_the_last_lines_of_one_engine_or_of_all(home: Path) -> None:
    _log(home, "kafka", "one\ntwo\nthree\n")
    _log(home, "redis", "ready\n")
    assert RUNNER.invoke(commands.app, ["logs", "kafka", "-n", "2"]).output == "two\nthree\n"
    both = RUNNER.invoke(commands.app, ["logs", "--lines", "1"]).output
    assert both.splitlines() == ["kafka      | three", "redis      | ready"]


def test_logs_of_an_unknown_engine_are_refused(home: Path) -> None:
    result = RUNNER.invoke(commands.app, ["logs", "mysql"])
    assert isinstance(result.exception, UnknownEngineError)
    assert "expected one of kafka, clickhouse, redis, postgres" in str(result.exception)


def test_logs_follow_what_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _log(home, "redis", "before\n")
    rounds = iter(range(3))

    def write_more(_: float) -> None:
        number = next(rounds, None)
        if number is None:
            raise KeyboardInterrupt
        with (home / "logs" / "redis.log").open("a") as file:
            file.write(f"line {number}\n")

    monkeypatch.setattr("runtime.stack.commands.time.sleep", write_more)
    commands.logs("redis", lines=10, follow=True)
    assert capsys.readouterr().out == "before\nline 0\nline 1\nline 2\n"


@pytest.mark.integration
def test_status_tells_of_a_running_stack(stack: StackState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(stack.home))
    told = RUNNER.invoke(commands.app, ["status", "--json"])
    assert told.exit_code == 0, told.output
    engines = {one["name"]: one for one in json.loads(told.stdout)["engines"]}
    assert set(engines) == set(ENGINES)
    assert all(one["answering"] and one["pid"] for one in engines.values())
    assert {name: one["url"] for name, one in engines.items()} == stack.urls
    text = RUNNER.invoke(commands.app, ["status"]).output
    assert "\x1b" not in text
    assert all(url in text for url in stack.urls.values())


@pytest.mark.integration
def test_up_on_a_running_stack_is_quick_to_say_so(stack: StackState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(stack.home))
    result = RUNNER.invoke(commands.app, ["up"])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "starting" not in result.output
    assert "The stack is up after" in result.output
    assert threading.active_count() < 20
