"""The stack's life: up, up again, killed and up again with all data, down; alone in a home of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import psycopg
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from runtime import stack
from runtime.settings import ENGINES
from runtime.stack import EngineStatus, StackState, jars
from runtime.stack.errors import EngineFailedError, UnknownEngineError
from runtime.stack.ports import LOOPBACK, listening

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def _quiet(_: str) -> None:
    return


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # Root's temporary folders are closed to others: PostgreSQL's user gets its data through them all the same.
    folder = tmp_path_factory.mktemp("lifecycle") / "home"
    try:
        stack.up(folder, progress=_quiet)
        yield folder
    finally:
        stack.down(folder)


def _by_name(home: Path) -> dict[str, EngineStatus]:
    return {one.name: one for one in stack.status(home)}


def _exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_every_engine_runs_and_answers(home: Path) -> None:
    told = _by_name(home)
    assert set(told) == set(ENGINES)
    for one in told.values():
        assert one.running
        assert one.answering
        assert one.pid is not None
        assert _exists(one.pid)
        assert one.version
        assert stack.log_paths(home)[one.name].is_file()


def test_a_second_up_finds_the_running_stack(home: Path) -> None:
    before = _by_name(home)
    state = stack.up(home, progress=_quiet)
    assert _by_name(home) == before
    assert {name: engine.pid for name, engine in state.engines.items()} == {n: one.pid for n, one in before.items()}


def test_two_ups_at_once_make_one_stack(home: Path) -> None:
    stack.down(home)
    states: list[StackState] = []
    threads = [threading.Thread(target=lambda: states.append(stack.up(home, progress=_quiet))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(states) == 2
    assert states[0] == states[1]
    assert all(one.answering for one in stack.status(home))


def test_a_kill_of_every_engine_loses_nothing_that_was_acknowledged(home: Path) -> None:
    urls = stack.up(home, progress=_quiet).urls
    _write_everywhere(urls)
    pids = {one.name: one.pid for one in stack.status(home)}
    for name in ENGINES:
        stack.launcher(home, name).kill()
    assert not any(one.running for one in stack.status(home))
    state = stack.up(home, progress=_quiet)
    assert state.urls == urls  # the ports of before, so that clients find them again
    assert all(engine.pid != pids[name] for name, engine in state.engines.items())
    _check_everywhere(urls)


@pytest.mark.parametrize("name", ENGINES)
def test_up_recovers_one_killed_engine_and_leaves_the_others(home: Path, name: str) -> None:
    before = stack.up(home, progress=_quiet)
    pid = before.engines[name].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    after = stack.up(home, progress=_quiet)
    changed = {one for one in ENGINES if after.engines[one].pid != before.engines[one].pid}
    assert changed == {name}
    assert after.urls == before.urls
    assert all(one.answering for one in stack.status(home))


def test_a_stale_process_file_of_postgres_does_not_stop_it(home: Path) -> None:
    stack.launcher(home, "postgres").stop()
    stale = home / "postgres" / "data" / "postmaster.pid"
    stale.write_text(f"1\n{home / 'postgres' / 'data'}\n1\n1\n\n127.0.0.1\n")  # a process that lives, but another
    stack.up(home, progress=_quiet)
    assert _by_name(home)["postgres"].answering


def test_a_port_that_was_taken_meanwhile_is_replaced(home: Path) -> None:
    import socket

    one = stack.launcher(home, "redis")
    port = one.ports["main"]
    one.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((LOOPBACK, port))
        squatter.listen()
        state = stack.up(home, progress=_quiet)
        assert state.engines["redis"].ports["main"] != port
        assert state.urls["redis"] == f"redis://{LOOPBACK}:{state.engines['redis'].ports['main']}/0"
        assert _by_name(home)["redis"].answering


def test_a_frozen_engine_is_told_apart_from_an_answering_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.stack.launchers.redis import RedisLauncher

    pid = _by_name(home)["redis"].pid
    assert pid is not None
    monkeypatch.setattr(RedisLauncher, "start_seconds", 0.5)
    os.kill(pid, signal.SIGSTOP)
    try:
        frozen = _by_name(home)["redis"]
        assert (frozen.running, frozen.answering) == (True, False)
        with pytest.raises(EngineFailedError, match="does not answer"):
            stack.up(home, progress=_quiet)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert stack.up(home, progress=_quiet).engines["redis"].pid == pid


def test_an_engine_that_cannot_start_is_told_with_the_end_of_its_log(home: Path) -> None:
    one = stack.launcher(home, "redis")
    one.stop()
    manifest = home / "redis" / "data" / "appendonlydir" / "appendonly.aof.manifest"
    kept = manifest.read_bytes()
    manifest.write_bytes(b"not a manifest\n")
    try:
        with pytest.raises(EngineFailedError, match="redis ended while it started") as failure:
            stack.up(home, progress=_quiet)
    finally:
        manifest.write_bytes(kept)
    assert failure.value.code == "engine_failed"
    assert "manifest" in str(failure.value)
    assert _by_name(home)["kafka"].answering  # the others are up
    assert stack.up(home, progress=_quiet).urls
    assert _by_name(home)["redis"].answering


def test_down_leaves_no_process_and_keeps_the_data(home: Path) -> None:
    state = stack.up(home, progress=_quiet)
    _write_everywhere(state.urls)
    pids = [engine.pid for engine in state.engines.values()]
    said: list[str] = []
    stack.down(home, progress=said.append)
    assert sorted(said) == sorted(f"{name}: ended" for name in ENGINES)
    assert not any(_exists(pid) for pid in pids if pid is not None)
    assert not any(listening(port) for engine in state.engines.values() for port in engine.ports.values())
    assert not any(one.running or one.pid for one in stack.status(home))
    stack.down(home)  # nothing to do
    _check_everywhere(stack.up(home, progress=_quiet).urls)


def test_an_engine_whose_state_was_lost_is_found_and_ended(home: Path) -> None:
    pid = _by_name(home)["redis"].pid
    (home / "stack.json").rename(home / "kept.json")
    try:
        stack.down(home)
    finally:
        (home / "kept.json").rename(home / "stack.json")
    assert pid is not None
    assert not _exists(pid)
    stack.up(home, progress=_quiet)


def test_external_engines_are_not_started(tmp_path: Path) -> None:
    home = tmp_path / "home"
    try:
        state = stack.up(home, progress=_quiet, external={"kafka", "clickhouse", "postgres"})
        assert set(state.engines) == {"redis"}
        assert [(one.name, one.answering) for one in stack.status(home)] == [("redis", True)]
    finally:
        stack.down(home)


def test_names_that_are_no_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownEngineError, match="mysql"):
        stack.up(tmp_path, progress=_quiet, external={"mysql"})
    with pytest.raises(UnknownEngineError, match="kafka"):
        stack.launcher(tmp_path, "kafka")


def test_nothing_was_ever_started(tmp_path: Path) -> None:
    stack.down(tmp_path / "nowhere")
    assert stack.status(tmp_path / "nowhere") == []
    assert not (tmp_path / "nowhere").exists()


def test_a_plain_user_can_run_the_stack() -> None:
    """As root: once more as `nobody`, in a folder of its own. As a plain user every other test here shows it."""
    folder = Path(tempfile.mkdtemp(prefix="meterbook-", dir="/var/tmp"))
    try:
        shutil.copytree(jars.cache_folder(), folder / "cache" / "meterbook" / "kafka")
        words = _as_nobody(folder) if os.geteuid() == 0 else []
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "METERBOOK_HOME": str(folder / "home"),
            "PYTHONPATH": f"{ROOT}:{Path(redis.__file__).parents[1]}",
        }
        for command, said in (("up", "The stack is up"), ("status", "answers"), ("down", "The stack is down")):
            done = subprocess.run(
                [*words, sys.executable, "-m", "runtime.stack.commands", command],
                env=environment,
                cwd="/",
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert said in done.stdout
        owners = {path.stat().st_uid for path in (folder / "home").rglob("*")}
        assert owners == {folder.stat().st_uid}
    finally:
        stack.down(folder / "home")
        shutil.rmtree(folder)


def _as_nobody(folder: Path) -> list[str]:
    """Words before a command that make it run as `nobody`, who owns the folder."""
    user = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    # This Python may lie in a folder that only root may enter; passing through folders is all that is lent here.
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    ]


def _write_everywhere(urls: dict[str, str]) -> None:
    import asyncio

    asyncio.run(_write_kafka(urls["kafka"]))
    client = clickhouse_connect.get_client(dsn=urls["clickhouse"])
    client.command("CREATE TABLE IF NOT EXISTS kept (id UInt64) ENGINE = ReplacingMergeTree ORDER BY id")
    client.insert("kept", [[41], [42]], ["id"])
    client.close()
    with redis.Redis.from_url(urls["redis"]) as connection:
        connection.set("kept", "42")
    with psycopg.connect(urls["postgres"]) as postgres:
        postgres.execute("CREATE TABLE IF NOT EXISTS kept (id int PRIMARY KEY, name text)")
        postgres.execute("INSERT INTO kept VALUES (42, 'ünï') ON CONFLICT DO NOTHING")


def _check_everywhere(urls: dict[str, str]) -> None:
    import asyncio

    assert asyncio.run(_read_kafka(urls["kafka"]))[-1] == b"kept"
    client = clickhouse_connect.get_client(dsn=urls["clickhouse"])
    assert client.query("SELECT id FROM kept FINAL ORDER BY id").result_rows == [(41,), (42,)]
    client.close()
    with redis.Redis.from_url(urls["redis"], decode_responses=True) as connection:
        assert connection.get("kept") == "42"
    with psycopg.connect(urls["postgres"]) as postgres:
        assert postgres.execute("SELECT name, upper(name) FROM kept").fetchall() == [("ünï", "ÜNÏ")]
        assert postgres.execute("SHOW fsync").fetchone() == ("on",)
        assert postgres.execute("SHOW server_encoding").fetchone() == ("UTF8",)


async def _write_kafka(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    if "kept" not in await admin.list_topics():
        await admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    await admin.close()
    # A transaction, because its coordinator's state must come back after a kill too.
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="lifecycle", acks="all")
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait("kept", b"kept")
    await producer.stop()


async def _read_kafka(bootstrap: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await consumer.start()
    partition = TopicPartition("kept", 0)
    consumer.assign([partition])
    end = (await consumer.end_offsets([partition]))[partition]
    values = []
    while await consumer.position(partition) < end:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            values += [record.value for record in records]
    await consumer.stop()
    return values
