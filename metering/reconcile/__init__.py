"""Reconciliation: the same usage counted along different ways must come to the same figure, always.

- journal: events on the raw topic = accepted + duplicates + rejected + misplaced, per source partition;
- rollups, samples: what ClickHouse keeps per tenant, meter and hour = the distinct raw events measured again;
- quotas: live totals of the present month in Redis = the same month in ClickHouse.
"""
