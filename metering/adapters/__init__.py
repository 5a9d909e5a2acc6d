"""Where counted usage is read: ClickHouse."""
