"""The state file, the lock on it, and the choice of ports."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from runtime.settings import load_settings, mask_password, read_stack_urls
from runtime.stack import ports
from runtime.stack.errors import HomeNotUsableError, StackError
from runtime.stack.state import EngineState, StackState, exclusive, read_state, write_state

KAFKA = EngineState("127.0.0.1:15001", {"main": 15_001, "controller": 15_002}, 77, "Apache Kafka 4.3.1")
REDIS = EngineState("redis://127.0.0.1:15003/0", {"main": 15_003})


def test_what_is_written_is_read_and_the_settings_find_it(tmp_path: Path) -> None:
    state = StackState(tmp_path, {"kafka": KAFKA, "redis": REDIS})
    write_state(state)
    assert read_state(tmp_path) == state
    assert read_stack_urls(tmp_path) == state.urls == {"kafka": KAFKA.url, "redis": REDIS.url}
    settings = load_settings(home=tmp_path, kafka_url=None, redis_url=None)
    assert (settings.kafka_bootstrap, settings.redis) == (KAFKA.url, REDIS.url)


def test_no_state_file_is_an_empty_state(tmp_path: Path) -> None:
    assert read_state(tmp_path).engines == {}
    assert read_state(tmp_path / "nowhere").engines == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"engines": []}', '{"engines": {"kafka": {}}}', '{"engines": {"mysql": {"url": "x"}}}'],
)
def test_a_damaged_state_file_is_told_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(HomeNotUsableError, match="cannot be read") as refusal:
        read_state(tmp_path)
    assert refusal.value.code == "home_not_usable"
    assert (tmp_path / "stack.json").read_text() == text


def test_a_write_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    write_state(StackState(tmp_path, {"kafka": KAFKA}))
    write_state(StackState(tmp_path, {"redis": REDIS}))
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]
    assert list(json.loads((tmp_path / "stack.json").read_text())["engines"]) == ["redis"]


def test_a_password_in_a_url_is_for_its_owner_only(tmp_path: Path) -> None:
    secret = EngineState("http://default:secret@127.0.0.1:15004/meterbook", {"main": 15_004})
    write_state(StackState(tmp_path, {"clickhouse": secret}))
    assert (tmp_path / "stack.json").stat().st_mode & 0o077 == 0
    assert mask_password(secret.url) == "http://default:***@127.0.0.1:15004/meterbook"
    assert mask_password(REDIS.url) == REDIS.url
    assert mask_password(KAFKA.url) == KAFKA.url


def test_one_program_at_a_time_changes_the_stack(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with exclusive(tmp_path, lambda _: waits.set()):
            order.append("second")

    with exclusive(tmp_path, order.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeNotUsableError, match="METERBOOK_HOME"), exclusive(tmp_path / "file" / "home", print):
        pass


def test_ports_are_free_apart_and_below_those_of_outgoing_connections() -> None:
    taken: set[int] = set()
    for _ in range(50):
        port = ports.pick(taken)
        assert port not in taken
        assert ports.LOWEST <= port < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        taken.add(port)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    port = ports.pick(set())
    assert ports.is_free(port)
    assert not ports.listening(port)
    with socket.socket() as server:
        server.bind((ports.LOOPBACK, port))
        server.listen()
        assert not ports.is_free(port)
        assert ports.listening(port)
    assert ports.is_free(port)


def test_no_free_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _: False)
    with pytest.raises(StackError, match="no free port"):
        ports.pick(set())


def test_files_of_the_state_are_readable_for_others_when_there_is_no_secret(tmp_path: Path) -> None:
    write_state(StackState(tmp_path, {"redis": REDIS}))
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "stack.json").stat().st_uid == os.geteuid()
