"""The present schema and the way there are the same: applied to fresh databases, their catalogues are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from runtime.migrations import (
    ClickHouseMigrations,
    PostgresMigrations,
    apply_pending,
    read_migrations,
    read_schema,
    split_statements,
)

pytestmark = pytest.mark.integration

# What describes a PostgreSQL schema, independent of object ids and of the order in which columns were added.
POSTGRES_CATALOGUE = {
    "columns": """
        SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default, is_identity,
               identity_generation, character_maximum_length, numeric_precision, numeric_scale
        FROM information_schema.columns WHERE table_schema = 'public'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid), convalidated
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "others": """
        SELECT relname, relkind FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('r', 'i', 'S')""",
    "triggers": "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "functions": "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
}
CLICKHOUSE_CATALOGUE = {
    "tables": """
        SELECT name, engine, replaceAll(engine_full, database || '.', ''), partition_key, sorting_key, primary_key,
               sampling_key FROM system.tables WHERE database = currentDatabase()""",
    "columns": """
        SELECT table, name, type, default_kind, default_expression, compression_codec, position
        FROM system.columns WHERE database = currentDatabase()""",
    "indexes": """
        SELECT table, name, type_full, expr, granularity
        FROM system.data_skipping_indices WHERE database = currentDatabase()""",
}


def postgres_catalogue(connection: psycopg.Connection[Any]) -> dict[str, set[Any]]:
    connection.execute("DROP TABLE IF EXISTS schema_migrations")
    return {part: set(connection.execute(query.encode()).fetchall()) for part, query in POSTGRES_CATALOGUE.items()}


def clickhouse_catalogue(client: Any) -> dict[str, set[Any]]:
    client.command("DROP TABLE IF EXISTS schema_migrations")
    return {part: {tuple(row) for row in client.query(sql).result_rows} for part, sql in CLICKHOUSE_CATALOGUE.items()}


def migrated_postgres(fresh: Callable[[], psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    connection = fresh()
    apply_pending(PostgresMigrations(connection), read_migrations("postgres"))
    return connection


def migrated_clickhouse(fresh: Callable[[], Any]) -> Any:
    client = fresh()
    apply_pending(ClickHouseMigrations(client), read_migrations("clickhouse"))
    return client


def test_postgres_migrations_lead_to_the_present_schema(
    fresh_postgres: Callable[[], psycopg.Connection[Any]],
) -> None:
    by_migrations = postgres_catalogue(migrated_postgres(fresh_postgres))
    present = fresh_postgres()
    present.execute(read_schema("postgres").encode())
    assert by_migrations == postgres_catalogue(present)
    assert len(by_migrations["columns"]) > 100
    assert len(by_migrations["constraints"]) > 50


def test_clickhouse_migrations_lead_to_the_present_schema(fresh_clickhouse: Callable[[], Any]) -> None:
    by_migrations = clickhouse_catalogue(migrated_clickhouse(fresh_clickhouse))
    present = fresh_clickhouse()
    for statement in split_statements(read_schema("clickhouse")):
        present.command(statement)
    assert by_migrations == clickhouse_catalogue(present)
    assert len(by_migrations["columns"]) > 30
    assert len(by_migrations["indexes"]) >= 1


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tenants ADD COLUMN extra text",
        "ALTER TABLE tenants ALTER COLUMN name DROP NOT NULL",
        "ALTER TABLE tenants ALTER COLUMN address SET DEFAULT 'x'",
        "ALTER TABLE invoices DROP CONSTRAINT invoices_subscription_id_period_start_sequence_key",
        "ALTER TABLE meters ADD CHECK (unit <> '')",
        "DROP INDEX one_live_payment_per_invoice",
        "CREATE VIEW everyone AS SELECT * FROM tenants",
    ],
)
def test_the_comparison_sees_every_kind_of_difference_in_postgres(
    fresh_postgres: Callable[[], psycopg.Connection[Any]], change: str
) -> None:
    connection = migrated_postgres(fresh_postgres)
    before = postgres_catalogue(connection)
    connection.execute(change.encode())
    assert postgres_catalogue(connection) != before


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE usage_events ADD COLUMN extra String",
        "ALTER TABLE usage_rollups MODIFY COLUMN events UInt32",
        "ALTER TABLE usage_events DROP INDEX time_range",
        "ALTER TABLE usage_events MODIFY COLUMN data String CODEC(LZ4)",
        "ALTER TABLE pipeline_progress MODIFY TTL toDateTime(at) + INTERVAL 31 DAY",
        "CREATE TABLE extra (a UInt8) ENGINE = MergeTree ORDER BY a",
    ],
)
def test_the_comparison_sees_every_kind_of_difference_in_clickhouse(
    fresh_clickhouse: Callable[[], Any], change: str
) -> None:
    client = migrated_clickhouse(fresh_clickhouse)
    before = clickhouse_catalogue(client)
    client.command(change)
    assert clickhouse_catalogue(client) != before
