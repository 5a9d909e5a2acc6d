"""From raw usage events to rollups, live quotas and the warehouse: the meter worker, the quota and warehouse agents.

Faust hosts the agents (worker, consumer thread, partition assignment, rebalance signals) but keeps none of their state
and commits nothing: see docs/decisions/0002. `domain/` is pure, `adapters/` speak to Kafka, Redis and ClickHouse,
`agents/` are the entry points behind `meterbook worker meter | quota | warehouse`.
"""
