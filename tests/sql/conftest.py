"""Fresh databases beside the session's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import clickhouse_connect
import psycopg
import pytest

from runtime.clickhouse import connection_arguments
from runtime.settings import Settings

_numbers = itertools.count()


@pytest.fixture
def fresh_postgres(settings: Settings) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    opened: list[tuple[str, psycopg.Connection[Any]]] = []
    with psycopg.connect(settings.postgres, autocommit=True) as maintenance:

        def create() -> psycopg.Connection[Any]:
            name = f"schema_test_{next(_numbers)}"
            maintenance.execute(f"CREATE DATABASE {name}")
            url = urlunsplit(urlsplit(settings.postgres)._replace(path=f"/{name}"))
            opened.append((name, psycopg.connect(url, autocommit=True)))
            return opened[-1][1]

        yield create
        for name, connection in opened:
            connection.close()
            maintenance.execute(f"DROP DATABASE {name}")


@pytest.fixture
def fresh_clickhouse(settings: Settings) -> Iterator[Callable[[], Any]]:
    arguments = connection_arguments(settings)
    opened: list[tuple[str, Any]] = []
    with closing(clickhouse_connect.get_client(**arguments)) as maintenance:

        def create() -> Any:
            name = f"schema_test_{next(_numbers)}"
            maintenance.command(f"CREATE DATABASE {name}")
            opened.append((name, clickhouse_connect.get_client(**{**arguments, "database": name})))
            return opened[-1][1]

        yield create
        for name, client in opened:
            client.close()
            maintenance.command(f"DROP DATABASE {name}")
