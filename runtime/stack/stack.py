"""The stack as a whole. Owns bringing all engines up, down, and telling how they are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runtime.settings import ENGINES
from runtime.stack import ports as loopback
from runtime.stack.errors import EngineFailedError, UnknownEngineError
from runtime.stack.launchers.clickhouse import ClickHouseLauncher
from runtime.stack.launchers.kafka import KafkaLauncher
from runtime.stack.launchers.launcher import Launcher
from runtime.stack.launchers.postgres import PostgresLauncher
from runtime.stack.launchers.redis import RedisLauncher
from runtime.stack.state import EngineState, StackState, exclusive, read_state, write_state

_LAUNCHERS: dict[str, type[Launcher]] = {
    kind.name: kind for kind in (KafkaLauncher, ClickHouseLauncher, RedisLauncher, PostgresLauncher)
}
# A port that was free a moment ago may be taken when the engine gets to it.
_PORT_TRIES = 3


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """How one engine is: `running` says its process lives, `answering` that it serves a client's request."""

    name: str
    running: bool
    answering: bool
    pid: int | None
    url: str
    version: str


def up(home: Path, *, progress: Callable[[str], None], external: Collection[str] = ()) -> StackState:
    """Start what is not running of the stack in `home`, wait until every engine answers, and return where they are.

    Engines named in `external` are somebody else's and not started. Ports are those of the last time where they are
    free. Safe to call at any time, from several programs at once and after a crash; raises a `StackError` (or
    `ChecksumMismatchError`) that says what to do.
    """
    home = home.absolute()
    names = [name for name in _known(external) if name not in external]
    with exclusive(home, progress):
        state = _place(read_state(home), names)
        write_state(state)
        with ThreadPoolExecutor(max(1, len(names)), thread_name_prefix="up") as pool:
            starts = {name: pool.submit(_start, home, name, state.engines[name].ports, progress) for name in names}
        faults = []
        for name, start in starts.items():
            error = start.exception()
            if error is None:
                state = state.with_engine(name, start.result())
            else:
                faults.append(error)
        write_state(state)
        if faults:
            raise faults[0] if len(faults) == 1 else EngineFailedError("\n".join(str(fault) for fault in faults))
    return state


def down(home: Path, *, progress: Callable[[str], None] = lambda _: None) -> None:
    """End every engine of the stack in `home`, in order, and keep the data; nothing happens to what does not run."""
    home = home.absolute()
    if not home.exists():
        return
    with exclusive(home, progress):
        state = read_state(home)
        running = [one for one in _all_launchers(home, state) if one.daemon.alive()]
        with ThreadPoolExecutor(len(_LAUNCHERS), thread_name_prefix="down") as pool:
            stops = {one.name: pool.submit(one.stop) for one in running}
        for name, stop in stops.items():
            stop.result()
            progress(f"{name}: ended")
        for name, engine in state.engines.items():
            state = state.with_engine(name, EngineState(engine.url, engine.ports, None, engine.version))
        if state.engines:
            write_state(state)


def status(home: Path) -> list[EngineStatus]:
    """How each engine is that was ever started in `home`; does not wait for a command that is changing the stack."""
    home = home.absolute()
    state = read_state(home)
    told = []
    for name, engine in state.engines.items():
        one = _LAUNCHERS[name](home, engine.ports)
        running = one.daemon.alive()
        told.append(
            EngineStatus(name, running, running and one.answers(), one.daemon.pid(), engine.url, engine.version)
        )
    return told


def log_paths(home: Path) -> dict[str, Path]:
    """The file that each engine writes its log to, by the engine's name."""
    return {name: home.absolute() / "logs" / f"{name}.log" for name in ENGINES}


def launcher(home: Path, name: str) -> Launcher:
    """The launcher of one engine that `up` has started before, to kill, stop or start it alone."""
    home = home.absolute()
    engine = read_state(home).engines.get(name)
    if engine is None:
        raise UnknownEngineError(f"no {name} was started in {home}: expected one of {', '.join(ENGINES)}")
    return _LAUNCHERS[name](home, engine.ports)


def _known(names: Collection[str]) -> tuple[str, ...]:
    unknown = sorted(set(names) - set(ENGINES))
    if unknown:
        raise UnknownEngineError(f"no such engine: {', '.join(unknown)}; expected of {', '.join(ENGINES)}")
    return ENGINES


def _all_launchers(home: Path, state: StackState) -> list[Launcher]:
    # Also those that the state does not know: its file may have been lost while they ran.
    return [
        kind(home, state.engines[name].ports if name in state.engines else dict.fromkeys(kind.port_purposes, 0))
        for name, kind in _LAUNCHERS.items()
    ]


def _place(state: StackState, names: list[str]) -> StackState:
    """Give each engine its ports: those it has while it runs, its last ones while they are free, else new ones."""
    taken = {port for engine in state.engines.values() for port in engine.ports.values()}
    for name in names:
        kind = _LAUNCHERS[name]
        before = state.engines.get(name)
        if before is not None and set(before.ports) == set(kind.port_purposes):
            one = kind(state.home, before.ports)
            if one.daemon.alive() or not one.port_taken():
                continue
        state = state.with_engine(name, _new_place(state.home, name, taken))
    return state


def _new_place(home: Path, name: str, taken: set[int]) -> EngineState:
    ports = {}
    for purpose in _LAUNCHERS[name].port_purposes:
        ports[purpose] = loopback.pick(taken)
        taken.add(ports[purpose])
    return EngineState(_LAUNCHERS[name](home, ports).url, ports)


def _start(home: Path, name: str, ports: dict[str, int], progress: Callable[[str], None]) -> EngineState:
    taken = set(ports.values())
    for attempt in range(_PORT_TRIES):
        one = _LAUNCHERS[name](home, ports)
        try:
            url = one.start(progress)
        except EngineFailedError:
            if attempt == _PORT_TRIES - 1 or one.daemon.alive() or not one.port_taken():
                raise
            progress(f"{name}: a port was taken meanwhile, trying another")
            ports = _new_place(home, name, taken).ports
            continue
        return EngineState(url, ports, one.daemon.pid(), one.version())
    raise AssertionError("unreachable: the last try returns or raises")
