"""Redis, PostgreSQL and ClickHouse behind the ports of quotas."""
