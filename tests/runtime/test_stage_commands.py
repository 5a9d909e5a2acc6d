"""Commands of stages: found by name without loading the other stages, all of them in the help."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from runtime.cli import app
from runtime.stage_commands import STAGES, Mount, mounted


@pytest.mark.parametrize(("mount", "names"), STAGES, ids=lambda given: "" if callable(given) else "+".join(given))
def test_a_stage_brings_the_commands_it_is_listed_with(mount: Mount, names: tuple[str, ...]) -> None:
    assert tuple(mounted(mount)) == names


def test_no_name_is_brought_twice() -> None:
    names = [name for _, names in STAGES for name in names]
    own = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    assert len(names) == len(set(names))
    assert not {*names} & {*own}


def test_the_help_has_every_command() -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--help"])
    assert done.exit_code == 0
    told = {line.split()[1] for line in done.output.splitlines() if len(line.split()) > 2}
    assert {name for _, names in STAGES for name in names} | {"worker", "api", "migrate", "settings"} <= told


def test_a_mistyped_command_is_answered_with_the_likely_one() -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["invoce"])
    assert done.exit_code == 2
    assert "Did you mean 'invoice'?" in done.output


def test_a_worker_starts_without_the_stages_of_others() -> None:
    """Importing them all took seconds, which a worker that was killed paid each time it started again."""
    look = "import sys, runtime.cli, streams.agents.meter; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert "streams" in loaded
    assert not {"payments", "invoicing", "alerts", "subscriptions", "catalogues", "stripe", "fastapi", "redis"} & {
        *loaded
    }


def test_one_command_is_not_taken_for_the_program() -> None:
    def alone(app: typer.Typer) -> None:
        app.command(name="alone")(lambda: None)

    assert list(mounted(alone)) == ["alone"]
