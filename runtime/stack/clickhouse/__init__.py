"""ClickHouse's HTTP interface in front of the chDB engine, so that every client has one way to ClickHouse."""
