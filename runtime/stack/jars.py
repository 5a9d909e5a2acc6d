"""Kafka's jars. Owns the lock file, fetching what it names, and refusing a jar that is not the locked one.

Downloads go through jgo's Maven client, which reads the user's own jgo settings for mirrors; a jar that the user's
Maven cache already holds is taken from there. Run as a program it makes the lock anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.stack.errors import (
    ChecksumMismatchError,
    InvalidLockError,
    PackageMissingError,
    RegistryUnreachableError,
)

LOCK = Path(__file__).with_name("kafka.lock")
KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka logs through slf4j 1.7; without this plain writer to standard error its log would vanish.
LOGGING = "org.slf4j:slf4j-simple:1.7.36"
_HEADER = """\
# The jars of Apache Kafka: group:artifact:version sha256, one a line, sorted.
# Made by `python -m runtime.stack.jars`; each jar is checked against it before Kafka starts.
"""
_LINE = re.compile(r"(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.-]+) (?P<sha256>[0-9a-f]{64})")
_AT_ONCE = 8
_TIMEOUT_SECONDS = 30
_ABANDONED_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar: its Maven coordinates and the SHA-256 of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's name in a folder of jars; artifacts of two groups may share a name, so the group is part of it."""
        return f"{self.group}.{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def read_lock(lock: Path = LOCK) -> list[Jar]:
    """Read the lock file; raises `InvalidLockError` naming the first line that is wrong."""
    jars = []
    for number, line in enumerate(lock.read_text().splitlines(), start=1):
        if line and not line.startswith("#"):
            match = _LINE.fullmatch(line)
            if match is None:
                raise InvalidLockError(f"{lock}, line {number}: expected 'group:artifact:version sha256', got {line!r}")
            jars.append(Jar(**match.groupdict()))
    if not jars:
        raise InvalidLockError(f"{lock} names no jar")
    return jars


def cache_folder() -> Path:
    """The user's folder of downloaded jars, shared by all homes (`XDG_CACHE_HOME`, else `~/.cache`)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "meterbook" / "kafka"


def provide(
    folder: Path,
    progress: Callable[[str], None],
    *,
    lock: Path = LOCK,
    repositories: Mapping[str, str] | None = None,
    user_cache: Path | None = None,
) -> list[Path]:
    """Make every locked jar lie in `folder`, fetching those that are missing, and return them, each one checked.

    `repositories` (name to URL) and `user_cache` (a Maven cache to take jars from) replace the user's own. Raises
    `ChecksumMismatchError` when a jar is not the locked one and `RegistryUnreachableError` when one cannot be had.
    """
    jars = read_lock(lock)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in jars if not (folder / jar.file_name).exists()]
    for jar in jars:
        if jar not in missing:
            _check(folder / jar.file_name, jar)
    if missing:
        _remove_abandoned(folder)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as staging:
            _fetch_all(missing, folder, _maven(Path(staging), repositories, user_cache), progress)
    return [folder / jar.file_name for jar in jars]


def _remove_abandoned(folder: Path) -> None:
    """Drop what fetches that were killed have left; those of the last hour may still be going on."""
    for staging in folder.glob("fetch-*"):
        if time.time() - staging.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(staging, ignore_errors=True)


def _fetch_all(missing: list[Jar], folder: Path, maven: Any, progress: Callable[[str], None]) -> None:
    fetched_bytes = 0
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="jars") as pool:
        pending = [pool.submit(_fetch, jar, folder, maven) for jar in missing]
        try:
            for count, done in enumerate(as_completed(pending), start=1):
                path = done.result()
                fetched_bytes += path.stat().st_size
                progress(f"kafka: {count} of {len(missing)} jars, {fetched_bytes / 1e6:.1f} MB ({path.stem})")
        except BaseException:
            for future in pending:
                future.cancel()
            raise


def _fetch(jar: Jar, folder: Path, maven: Any) -> Path:
    artifact = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    try:
        path = Path(artifact.resolve())
    # jgo raises what the HTTP client raises (an OSError), or RuntimeError when no repository has the file.
    except (OSError, RuntimeError) as error:
        raise RegistryUnreachableError(
            f"the Maven registry did not give {jar} ({type(error).__name__}): check the network, a proxy "
            "(HTTPS_PROXY) or a mirror (repositories in jgo's settings), and start again; "
            "or use a Kafka of yours: METERBOOK_KAFKA_URL"
        ) from error
    _check(path, jar)
    # Moved only when checked, and in one step: what lies in the folder is always a whole jar.
    partial = path.with_suffix(".checked")
    shutil.copyfile(path, partial)
    return partial.replace(folder / jar.file_name)


def _check(path: Path, jar: Jar) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != jar.sha256:
        raise ChecksumMismatchError(
            f"{path} is not the {jar} that was locked (SHA-256 {found}, expected {jar.sha256}): "
            "remove the file and start again; if it comes back, the registry or a mirror is not to be trusted"
        )


def _maven(staging: Path, repositories: Mapping[str, str] | None, user_cache: Path | None) -> Any:
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise PackageMissingError(
            f"jgo, which fetches Kafka, is missing ({error}): run `make setup`, or pip install 'meterbook[embedded]'"
        ) from error
    settings = GlobalSettings.load()
    remote = dict(repositories) if repositories is not None else (settings.repositories or None)
    return MavenContext(
        repo_cache=staging,
        local_repos=[user_cache if user_cache is not None else Path(settings.repo_cache)],
        remote_repos=remote,
        timeout=_TIMEOUT_SECONDS,
    )


def make_lock() -> str:
    """Resolve Kafka and its dependencies anew, fetch them all and return the lock's text."""
    with tempfile.TemporaryDirectory() as staging:
        maven = _maven(Path(staging), None, None)
        wanted = [maven.create_dependency(coordinate) for coordinate in (KAFKA, LOGGING)]
        _, nodes = maven.resolver.get_dependency_list(wanted)
        lines = set()
        for artifact in [dependency.artifact for dependency in wanted] + [node.dep.artifact for node in nodes]:
            digest = hashlib.sha256(Path(artifact.resolve()).read_bytes()).hexdigest()
            lines.add(f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {digest}\n")
    return _HEADER + "".join(sorted(lines))


if __name__ == "__main__":
    sys.stdout.write(make_lock())
