"""Kafka's jars: the lock, fetching from a registry, and refusing what is not the locked file."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runtime.stack import jars
from runtime.stack.errors import ChecksumMismatchError, InvalidLockError, RegistryUnreachableError

JARS = {"org/one/alpha/1.0/alpha-1.0.jar": b"first jar", "org/two/beta/2.1/beta-2.1.jar": b"second jar"}
COORDINATES = {"org.one:alpha:1.0": b"first jar", "org.two:beta:2.1": b"second jar"}


class Registry:
    """A Maven repository on loopback that counts what it was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/maven2/")
                registry.asked.append(path)
                body = registry.files.get(path)
                if body is None and path.endswith(".sha1") and path[:-5] in registry.files:
                    body = hashlib.sha1(registry.files[path[:-5]]).hexdigest().encode()
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.repositories = {"here": f"http://127.0.0.1:{self._server.server_port}/maven2"}
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry(JARS)
    yield made
    made.close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "kafka.lock"
    lines = [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in COORDINATES.items()]
    path.write_text("# a comment\n" + "\n".join(lines) + "\n")
    return path


def provide(tmp_path: Path, lock: Path, registry: Registry, said: list[str] | None = None) -> list[Path]:
    return jars.provide(
        tmp_path / "libs",
        (said if said is not None else []).append,
        lock=lock,
        repositories=registry.repositories,
        user_cache=tmp_path / "user-cache",
    )


def test_the_committed_lock_pins_kafka_and_names_no_host() -> None:
    locked = jars.read_lock()
    assert "org.apache.kafka:kafka_2.13:4.3.1" in {str(jar) for jar in locked}
    assert len({jar.file_name for jar in locked}) == len(locked) > 40
    assert "://" not in jars.LOCK.read_text()


def test_jars_are_fetched_with_progress_and_only_once(tmp_path: Path, lock: Path, registry: Registry) -> None:
    said: list[str] = []
    paths = provide(tmp_path, lock, registry, said)
    assert [path.read_bytes() for path in paths] == [b"first jar", b"second jar"]
    assert [line.split(" jars")[0] for line in said] == ["kafka: 1 of 2", "kafka: 2 of 2"]
    registry.asked.clear()
    assert provide(tmp_path, lock, registry) == paths
    assert registry.asked == []
    assert sorted(path.name for path in (tmp_path / "libs").iterdir()) == sorted(path.name for path in paths)


def test_a_jar_of_the_users_maven_cache_is_not_fetched(tmp_path: Path, lock: Path, registry: Registry) -> None:
    for path, content in JARS.items():
        (tmp_path / "user-cache" / path).parent.mkdir(parents=True)
        (tmp_path / "user-cache" / path).write_bytes(content)
    assert [path.read_bytes() for path in provide(tmp_path, lock, registry)] == list(JARS.values())
    assert registry.asked == []


def test_a_fetched_jar_with_another_checksum_is_refused_and_not_kept(
    tmp_path: Path, lock: Path, registry: Registry
) -> None:
    registry.files["org/two/beta/2.1/beta-2.1.jar"] = b"something else"
    with pytest.raises(ChecksumMismatchError, match=r"not the org\.two:beta:2\.1 that was locked") as refusal:
        provide(tmp_path, lock, registry)
    assert refusal.value.code == "checksum_mismatch"
    assert "not to be trusted" in str(refusal.value)
    assert not (tmp_path / "libs" / "org.two.beta-2.1.jar").exists()
    registry.files["org/two/beta/2.1/beta-2.1.jar"] = b"second jar"
    assert len(provide(tmp_path, lock, registry)) == 2


def test_a_kept_jar_that_was_changed_is_refused_before_it_is_used(
    tmp_path: Path, lock: Path, registry: Registry
) -> None:
    provide(tmp_path, lock, registry)[0].write_bytes(b"changed on disk")
    with pytest.raises(ChecksumMismatchError, match="remove the file and start again"):
        provide(tmp_path, lock, registry)


def test_a_registry_that_does_not_answer_stops_with_a_sentence_that_helps(tmp_path: Path, lock: Path) -> None:
    with pytest.raises(RegistryUnreachableError, match="METERBOOK_KAFKA_URL") as refusal:
        jars.provide(
            tmp_path / "libs",
            lambda _: None,
            lock=lock,
            repositories={"nobody": "http://127.0.0.1:9/maven2"},
            user_cache=tmp_path / "user-cache",
        )
    assert refusal.value.code == "registry_unreachable"
    assert "\n" not in str(refusal.value)
    assert "127.0.0.1" not in str(refusal.value)


def test_a_registry_without_the_jar_is_told(tmp_path: Path, lock: Path, registry: Registry) -> None:
    del registry.files["org/one/alpha/1.0/alpha-1.0.jar"]
    with pytest.raises(RegistryUnreachableError, match=r"did not give org\.one:alpha:1\.0"):
        provide(tmp_path, lock, registry)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no jar"),
        ("# only a comment\n", "names no jar"),
        ("org.one:alpha:1.0\n", "line 1"),
        ("# c\norg.one:alpha 00\n", "line 2"),
        ("org.one:alpha:1.0 " + "g" * 64, "line 1"),
        ("org.one:../alpha:1.0 " + "0" * 64, "line 1"),
    ],
)
def test_a_damaged_lock_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "kafka.lock"
    path.write_text(text)
    with pytest.raises(InvalidLockError, match=reason):
        jars.read_lock(path)
