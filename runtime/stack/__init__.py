"""The embedded stack: the real engines (Kafka, ClickHouse, Redis, PostgreSQL) on one machine without Docker."""
