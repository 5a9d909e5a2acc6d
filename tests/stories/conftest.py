"""PostgreSQL alone for the stories across all stages: a database of its own for each, made from one that is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from catalogues.adapters.postgres import PostgresCatalogueStore
from catalogues.apply_catalogue import apply_catalogue
from catalogues.load_catalogue import load_catalogue, read_files, shipped_files
from runtime.migrations import PostgresMigrations, apply_pending, read_migrations
from runtime.postgres import create_pool
from runtime.settings import ENGINES, Settings, load_settings
from runtime.stack import down, up
from tests.catalogues.memory import MemoryUsage
from tests.invoicing.scene import at
from tests.standins import stripe_account
from tests.standins.paypal_signing import Authority
from tests.stories.world import World

_TEMPLATE = "stories"
_databases = count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A PostgreSQL with a database that has all tables, the shipped catalogue and the stories' own."""
    home = tmp_path_factory.mktemp("stories")
    others = [engine for engine in ENGINES if engine != "postgres"]
    try:
        url = up(home, progress=print, external=others).engines["postgres"].url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {_TEMPLATE}".encode())
        settings = load_settings(home=home, postgres_url=url_of(url, _TEMPLATE))
        with psycopg.connect(settings.postgres, autocommit=True) as connection:
            apply_pending(PostgresMigrations(connection), read_migrations("postgres"))
        asyncio.run(_fill(settings))
        yield settings
    finally:
        down(home)


async def _fill(settings: Settings) -> None:
    own = read_files([Path(__file__).with_name("catalogue.yaml")])
    catalogue = load_catalogue([*shipped_files(), *own], (), ())
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection, connection.transaction():
        store = PostgresCatalogueStore(connection)
        await apply_catalogue(catalogue, store=store, usage=MemoryUsage(), now=at("2026-01-01"))


@asynccontextmanager
async def database(server: Settings) -> AsyncIterator[Settings]:
    """Open a database like the ready one, which nobody else uses, and drop it afterwards."""
    name = f"story_{next(_databases)}"
    with psycopg.connect(url_of(server.postgres, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}".encode())
        yield server.model_copy(update={"postgres_url": url_of(server.postgres, name)})
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def url_of(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Who signs PayPal's certificates."""
    return Authority()


@pytest.fixture
async def world(server: Settings, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """An empty world on 1 October 2026, with a Stripe and a PayPal that nobody else uses."""
    async with database(server) as settings, create_pool(settings, max_size=6) as pool:
        world = World(pool, authority)
        # Stripe's events are of the story's time.
        monkeypatch.setattr(stripe_account, "now", lambda: int(world.clock.now().timestamp()))
        await world.start()
        try:
            yield world
        finally:
            await world.stop()
