"""Where the running cost comes from and goes to: contracts in PostgreSQL, usage and results in ClickHouse, Kafka."""
