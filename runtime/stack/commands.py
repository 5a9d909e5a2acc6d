"""The stack's commands: `up`, `down`, `status`, `logs`. Owns what a person at a terminal sees of the stack."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from core.errors import MeterbookError
from runtime import stack
from runtime.settings import ENGINES, Settings, load_settings, mask_password
from runtime.stack.errors import UnknownEngineError

_FOLLOW_SECONDS = 0.3
_TABLE_WIDTH = 200


def external_engines(settings: Settings) -> set[str]:
    """The engines that the settings give by URL: somebody else's, not started by the stack."""
    return {name for name in ENGINES if getattr(settings, f"{name}_url") is not None}


def up() -> None:
    """Start Kafka, ClickHouse, Redis and PostgreSQL on this machine, and wait until they answer."""
    settings = load_settings()
    external = external_engines(settings)
    console = Console()
    began = time.monotonic()
    with console.status("starting the stack") if console.is_terminal else _Nothing():
        state = stack.up(settings.home, progress=lambda line: console.print(line, highlight=False), external=external)
    for name in sorted(external):
        console.print(f"{name}: not started, METERBOOK_{name.upper()}_URL is set", highlight=False)
    console.print(f"The stack is up after {time.monotonic() - began:.1f} s, its data in {state.home}.", highlight=False)


def down() -> None:
    """End the engines that `up` started; their data stays."""
    settings = load_settings()
    console = Console()
    stack.down(settings.home, progress=lambda line: console.print(line, highlight=False))
    console.print("The stack is down.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON for programs.")] = False,
) -> None:
    """Tell which engines run, where they are, and whether they answer; exit code 1 unless all do."""
    settings = load_settings()
    told = [replace(one, url=mask_password(one.url)) for one in stack.status(settings.home)]
    external = external_engines(settings)
    if as_json:
        sys.stdout.write(json.dumps({"home": str(settings.home), "engines": [asdict(one) for one in told]}) + "\n")
    elif told:
        _print_table(told, external)
    else:
        Console().print("No stack here yet: run `meterbook up`.")
    needed = set(ENGINES) - external
    if not needed <= {one.name for one in told if one.answering}:
        raise typer.Exit(1)


def logs(
    engine: Annotated[str, typer.Argument(help=f"One of {', '.join(ENGINES)}; all when left out.")] = "",
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines are written.")] = False,
) -> None:
    """Show the engines' logs."""
    paths = stack.log_paths(load_settings().home)
    if engine and engine not in paths:
        raise UnknownEngineError(f"no such engine: {engine}; expected one of {', '.join(ENGINES)}")
    shown = {engine: paths[engine]} if engine else paths
    try:
        places = {name: _write_tail(name, path, lines, many=not engine) for name, path in shown.items()}
        while follow:
            time.sleep(_FOLLOW_SECONDS)
            places = {name: _write_new(name, shown[name], place, many=not engine) for name, place in places.items()}
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        sys.stderr.close()  # the reader (`head`, a pager) has enough; nothing is left to say


def _write_tail(name: str, path: Path, lines: int, *, many: bool) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        for line in deque(file, lines):
            _write_line(name, line, many=many)
        return file.tell()


def _write_new(name: str, path: Path, place: int, *, many: bool) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        # A new start may have put a full log aside and begun a new one.
        file.seek(place if path.stat().st_size >= place else 0)
        for line in file:
            _write_line(name, line, many=many)
        return file.tell()


def _write_line(name: str, line: bytes, *, many: bool) -> None:
    text = line.decode(errors="replace").rstrip("\n")
    sys.stdout.write(f"{name:<10} | {text}\n" if many else f"{text}\n")
    sys.stdout.flush()


def _print_table(told: list[stack.EngineStatus], external: set[str]) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("engine", "state", "process", "address", "version"):
        table.add_column(title)
    for one in told:
        if one.name in external:
            said = "external"
        elif one.answering:
            said = "[green]answers[/green]"
        else:
            said = "[yellow]runs, does not answer[/yellow]" if one.running else "[red]down[/red]"
        table.add_row(one.name, said, str(one.pid or ""), one.url, one.version)
    # Addresses are to be copied, so a narrow terminal or a pipe must not cut them.
    Console(width=max(Console().width, _TABLE_WIDTH)).print(table, soft_wrap=True)


class _Nothing:
    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


def mount(app: typer.Typer) -> None:
    """Add the stack's four commands to an application."""
    for command in (up, down, status, logs):
        app.command()(command)


app = typer.Typer(no_args_is_help=True, help="The embedded stack.")
mount(app)


def main() -> None:
    """Run the commands alone; a typed error is one sentence and exit code 1."""
    try:
        app()
    except MeterbookError as error:
        Console(stderr=True).print(f"{error} [{error.code}]", markup=False, highlight=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
