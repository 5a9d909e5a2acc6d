"""Adapters of the stream: Faust's transport in batches, the transactional journal, Redis, ClickHouse."""
