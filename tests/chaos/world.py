"""Engines in a folder of their own, a proxy before each, the product's workers behind the proxies."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from runtime.kafka_topics import create_topics
from runtime.migrations import migrate
from runtime.settings import Settings, load_settings
from runtime.stack import ports
from runtime.stack.launchers.clickhouse import ClickHouseLauncher
from runtime.stack.launchers.kafka import KafkaLauncher
from runtime.stack.launchers.launcher import Launcher
from runtime.stack.launchers.postgres import PostgresLauncher
from runtime.stack.launchers.redis import RedisLauncher
from tests.chaos.fleet import Fleet
from tests.chaos.oracle import Almanac, Rule
from tests.chaos.proxy import Proxy

STREAM = ("meter", "quota", "warehouse")
PARTITIONS = 4
# Event times reach back to the last leap day and to the last changes of clocks.
MAX_AGE_DAYS = 3_000


class ProxiedKafka(KafkaLauncher):
    """Kafka with a second listener, which tells its clients to come by way of a proxy."""

    def __init__(self, home: Path, own: dict[str, int], *, behind: int, advertised: int) -> None:
        super().__init__(home, own)
        self._behind, self._advertised = behind, advertised

    def _write_settings(self) -> None:
        super()._write_settings()
        text = self._settings_file.read_text()
        text += "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT\n"
        for name, port in (("listeners", self._behind), ("advertised.listeners", self._advertised)):
            text = text.replace(f"\n{name}=", f"\n{name}=PROXIED://{ports.LOOPBACK}:{port},")
        self._settings_file.write_text(text)


@dataclass(frozen=True)
class Urls:
    """Where the engines are, past the proxies."""

    kafka: str
    clickhouse: str
    redis: str
    postgres: str


class World:
    """Started by `create`, ended by `close`."""

    def __init__(
        self, folder: Path, engines: Mapping[str, Launcher], proxies: Mapping[str, Proxy], settings: Settings
    ) -> None:
        self.folder, self.engines, self.proxies, self.settings = folder, engines, proxies, settings
        self.urls = Urls(settings.kafka_bootstrap, settings.clickhouse, settings.redis, settings.postgres)
        self.rules: tuple[Rule, ...] = ()
        self.almanacs: dict[str, Almanac] = {}
        self.api_port = ports.pick({one.port for one in proxies.values()})
        database = settings.clickhouse.rpartition("/")[2]
        workers = folder / "workers"
        workers.mkdir()
        self.fleet = Fleet(
            {
                "METERBOOK_HOME": str(folder / "home"),
                "METERBOOK_KAFKA_URL": f"127.0.0.1:{proxies['kafka'].port}",
                "METERBOOK_CLICKHOUSE_URL": f"http://127.0.0.1:{proxies['clickhouse'].port}/{database}",
                "METERBOOK_REDIS_URL": f"redis://127.0.0.1:{proxies['redis'].port}/0",
                "METERBOOK_POSTGRES_URL": f"postgresql://meterbook@127.0.0.1:{proxies['postgres'].port}/meterbook",
                "METERBOOK_EVENT_MAX_AGE_DAYS": str(MAX_AGE_DAYS),
                "METERBOOK_MICRO_BATCH_MS": "50",
                "METERBOOK_REGISTRY_REFRESH_SECONDS": "1",
                "METERBOOK_API_PORT": str(self.api_port),
            },
            workers,
        )

    @classmethod
    def create(cls, folder: Path | None = None) -> World:
        """Start the engines, migrate the stores, make the topics; no worker yet."""
        folder = folder or Path(tempfile.mkdtemp(prefix="meterbook-chaos-"))
        folder.chmod(0o755)
        home = folder / "home"
        home.mkdir()
        taken: set[int] = set()

        def pick() -> int:
            port = ports.pick(taken)
            taken.add(port)
            return port

        kafka = ProxiedKafka(home, {"main": pick(), "controller": pick()}, behind=(behind := pick()), advertised=pick())
        engines: dict[str, Launcher] = {
            "kafka": kafka,
            "clickhouse": ClickHouseLauncher(home, {"main": pick()}),
            "redis": RedisLauncher(home, {"main": pick()}),
            "postgres": PostgresLauncher(home, {"main": pick()}),
        }
        proxies: dict[str, Proxy] = {}
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda one: one.start(), engines.values()))
            proxies["kafka"] = Proxy(kafka._advertised, behind)
            for name in ("clickhouse", "redis", "postgres"):
                proxies[name] = Proxy(pick(), engines[name].ports["main"])
            settings = load_settings(
                home=home,
                kafka_url=engines["kafka"].url,
                clickhouse_url=engines["clickhouse"].url,
                redis_url=engines["redis"].url,
                postgres_url=engines["postgres"].url,
                usage_partitions=PARTITIONS,
            )
            migrate(settings)
            asyncio.run(create_topics(settings))
            return cls(folder, engines, proxies, settings)
        except BaseException:
            for engine in engines.values():
                engine.kill()
            raise

    def close(self) -> None:
        """End workers, proxies and engines, and remove the folder."""
        self.fleet.close()
        for proxy in self.proxies.values():
            proxy.close()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: one.kill(), self.engines.values()))
        shutil.rmtree(self.folder, ignore_errors=True)

    def heal(self) -> None:
        """Let every dependency work again, whatever was done to it."""
        for proxy in self.proxies.values():
            proxy.set("pass")
        for engine in self.engines.values():
            engine.daemon.signal(signal.SIGCONT)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: one.start(), self.engines.values()))

    def add_meters(self, rules: Iterable[Rule]) -> None:
        """Register meters."""
        rules = tuple(rules)
        with psycopg.connect(self.urls.postgres, autocommit=True) as connection:
            for rule in rules:
                _insert(connection, "meters", _meter_row(rule))
        self.rules = (*self.rules, *rules)

    def add_tenants(self, names: Iterable[str], almanac: Almanac | None = None) -> None:
        """Register tenants."""
        known = _columns(self.urls.postgres, "tenants")
        almanac = almanac or Almanac()
        with psycopg.connect(self.urls.postgres) as connection, connection.cursor() as cursor:
            for name in names:
                row = {"tenant_id": name, "name": name, "email": "billing@example.com", "country": "DE"}
                row |= {"currency": "EUR", "time_zone": almanac.zone, "billing_anchor_day": almanac.anchor}
                row = {column: value for column, value in row.items() if column in known}
                self.almanacs[name] = almanac
                marks = ", ".join(["%s"] * len(row))
                cursor.execute(  # type: ignore[call-overload]
                    f"INSERT INTO tenants ({', '.join(row)}, created_at) VALUES ({marks}, now())", list(row.values())
                )

    def limit(self, tenant: str, meter: str, quantity: int) -> None:
        """Give a tenant a limit."""
        with psycopg.connect(self.urls.postgres, autocommit=True) as connection:
            connection.execute("INSERT INTO quota_limits VALUES (%s, %s, %s, true, 'unit')", (tenant, meter, quantity))


def _meter_row(rule: Rule) -> dict[str, Any]:
    row: dict[str, Any] = {
        "meter_id": rule.name,
        "unit": "unit",
        "event_type": rule.event_type,
        "aggregation": rule.aggregation,
        "value_property": rule.value,
        "dimensions": list(rule.dimensions),
    }
    if rule.conditions:
        conditions = [{"property": p, "operator": o, "values": list(v)} for p, o, v in rule.conditions]
        row["filters"] = Jsonb(conditions)
    if rule.weight_per:
        row["weight_per"] = rule.weight_per
    return row


def _insert(connection: Any, table: str, row: dict[str, Any]) -> None:
    marks = ", ".join(["%s"] * len(row))
    connection.execute(
        f"INSERT INTO {table} ({', '.join(row)}, created_at) VALUES ({marks}, now())", list(row.values())
    )


def _columns(url: str, table: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT column_name FROM information_schema.columns WHERE table_name = %s", (table,))
        return {row[0] for row in rows.fetchall()}
