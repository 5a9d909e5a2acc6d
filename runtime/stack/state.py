"""The stack's state file. Owns `<home>/stack.json`: each engine's address, ports, process and version."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runtime.settings import ENGINES, STATE_FILE
from runtime.stack.errors import HomeNotUsableError

LOCK_FILE = "stack.lock"


@dataclass(frozen=True, slots=True)
class EngineState:
    """Where one engine is: `url` for clients, its loopback `ports` by purpose, `pid` (None when it was stopped)."""

    url: str
    ports: dict[str, int]
    pid: int | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class StackState:
    """All engines that the stack in one home folder owns, by name."""

    home: Path
    engines: dict[str, EngineState] = field(default_factory=dict)

    @property
    def urls(self) -> dict[str, str]:
        """Each engine's URL by its name."""
        return {name: engine.url for name, engine in self.engines.items()}

    def with_engine(self, name: str, engine: EngineState) -> StackState:
        """The same state with one engine replaced."""
        return replace(self, engines={**self.engines, name: engine})


def read_state(home: Path) -> StackState:
    """Read the state file of `home`; an empty state when there is none, `HomeNotUsableError` when it is damaged."""
    try:
        text = (home / STATE_FILE).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return StackState(home)
    try:
        engines = {name: _engine_from(part) for name, part in json.loads(text)["engines"].items()}
        if not engines.keys() <= set(ENGINES):
            raise ValueError(f"unknown engines: {sorted(engines.keys() - set(ENGINES))}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HomeNotUsableError(
            f"{home / STATE_FILE} cannot be read ({error!r}): run `meterbook down`, remove the file, and start again"
        ) from error
    return StackState(home, engines)


def write_state(state: StackState) -> None:
    """Replace the state file in one step, so that a reader or a crash never sees half of it."""
    text = json.dumps({"engines": {name: asdict(engine) for name, engine in state.engines.items()}}, indent=2)
    handle, name = tempfile.mkstemp(prefix=STATE_FILE, dir=state.home)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's 0600 is right for an address with a password; others may be read by whoever may read the folder.
        if not any(urlsplit(engine.url).password for engine in state.engines.values()):
            Path(name).chmod(0o644)
        Path(name).replace(state.home / STATE_FILE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def exclusive(home: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Let one program at a time change the stack of `home`; another one waits here and says so."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HomeNotUsableError(
            f"{home} cannot be written ({error.strerror}): set METERBOOK_HOME to a folder of yours"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another meterbook command is changing this stack: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _engine_from(part: dict[str, Any]) -> EngineState:
    ports = {str(purpose): int(port) for purpose, port in part.get("ports", {}).items()}
    pid = part.get("pid")
    return EngineState(str(part["url"]), ports, None if pid is None else int(pid), str(part.get("version", "")))
