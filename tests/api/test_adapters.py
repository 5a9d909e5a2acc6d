"""The API's adapters where the real engines cannot be made to misbehave on demand."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.adapters.kafka_publisher import KafkaPublisher
from api.adapters.registry_source import CachedRegistrySource
from api.ports import NotConfirmedError, OverloadedError
from core.clock import ManualClock
from core.errors import UnavailableError
from core.meters import Registry
from invoicing.adapters.folder import FolderDocuments
from runtime.registry import LoadedRegistry
from runtime.settings import load_settings
from tests.api.conftest import METERS, NOW


class SilentProducer:
    """Takes records and never confirms them."""

    def __init__(self) -> None:
        self.taken = 0

    async def send(self, topic: str, *, value: bytes, key: bytes) -> asyncio.Future[None]:
        self.taken += 1
        return asyncio.get_running_loop().create_future()


def publisher(producer: SilentProducer, **bounds: Any) -> KafkaPublisher:
    made = KafkaPublisher(load_settings(kafka_url="127.0.0.1:9"), **bounds)
    made._producer = producer
    return made


async def test_a_broker_that_stays_silent_is_not_waited_for_forever() -> None:
    with pytest.raises(NotConfirmedError):
        await publisher(SilentProducer(), confirm_seconds=0.05).publish([("acme", b"{}")])


async def test_more_than_may_wait_is_pushed_back_and_taken_again_afterwards() -> None:
    producer = SilentProducer()
    full = publisher(producer, confirm_seconds=0.2, waiting_bytes_max=100)
    waiting = asyncio.create_task(full.publish([("acme", b"x" * 80)]))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await full.publish([("acme", b"x" * 30)])
    assert producer.taken == 1
    with pytest.raises(NotConfirmedError):
        await waiting
    with pytest.raises(NotConfirmedError):
        await full.publish([("acme", b"x" * 30)])
    assert producer.taken == 2


class Store:
    """A registry's store that counts readings and may be away."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.readings, self.is_away = clock, 0, False

    async def refresh(self) -> LoadedRegistry:
        self.readings += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise psycopg.OperationalError("away")
        tenants = [f"tenant-{number}" for number in range(self.readings)]
        return LoadedRegistry(Registry.of(tenants, METERS), int(self.clock.now().timestamp() * 1_000))


def source(store: Store) -> CachedRegistrySource:
    return CachedRegistrySource(store, store.clock, refresh_seconds=5)  # type: ignore[arg-type]


async def test_many_requests_share_one_reading_and_an_old_one_is_renewed() -> None:
    store = Store(ManualClock(NOW))
    registry = source(store)
    await asyncio.gather(*(registry.current() for _ in range(50)))
    assert store.readings == 1
    store.clock.advance(timedelta(seconds=6))
    found = await asyncio.gather(*(registry.current() for _ in range(50)))
    assert store.readings == 2
    assert "tenant-1" in (await registry.current()).tenants
    assert len(found) == 50


async def test_a_second_look_reads_anew_once_for_all_who_ask_together() -> None:
    store = Store(ManualClock(NOW))
    registry = source(store)
    await registry.current()
    store.clock.advance(timedelta(seconds=1))
    await asyncio.gather(*(registry.newest() for _ in range(20)))
    assert store.readings == 2


async def test_in_an_outage_the_last_good_registry_serves_and_without_one_it_says_so() -> None:
    store = Store(ManualClock(NOW))
    registry = source(store)
    store.is_away = True
    with pytest.raises(UnavailableError):
        await registry.current()
    store.is_away = False
    known = await registry.current()
    store.is_away = True
    store.clock.advance(timedelta(minutes=10))
    assert await registry.current() == known
    with pytest.raises(UnavailableError):
        await registry.newest()


async def test_documents_are_found_inside_of_their_folder_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.pdf").write_bytes(b"secret")
    written = await FolderDocuments(Path("documents")).write("acme/MB-1.pdf", b"%PDF")
    (tmp_path / "documents" / "link.pdf").symlink_to(tmp_path / "secret.pdf")
    documents = FolderDocuments(Path("documents"))
    for location in (written, "acme/MB-1.pdf", str(tmp_path / written)):
        assert await documents.read(location) == b"%PDF"
    for location in (
        "../secret.pdf",
        "secret.pdf",
        str(tmp_path / "secret.pdf"),
        "link.pdf",
        "acme",
        "/etc/passwd",
        "",
    ):
        assert await documents.read(location) is None
