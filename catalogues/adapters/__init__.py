"""The catalogue's stores: PostgreSQL for meters and plans, ClickHouse for the question whether a meter has usage."""
