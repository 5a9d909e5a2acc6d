-- ClickHouse: the truth of usage. The present schema; migrations/ lead here (tests/sql keeps both equal).
-- Every table replaces by version, so writing a row again, however often, changes nothing. Read with FINAL.

-- Accepted events by identity. The first record of an identity wins: version counts down from the largest offset.
-- Not partitioned: a twin with another time must meet its original, and merges never cross partitions.
CREATE TABLE usage_events (
    tenant             String,
    source             String,
    id                 String,
    type               LowCardinality(String),
    customer           String,
    time               DateTime64(6, 'UTC'),
    data               String CODEC(ZSTD(3)),
    received_at        DateTime64(3, 'UTC'),
    source_partition   UInt16,
    source_offset      UInt64,
    source_index       UInt32,
    version            UInt64,
    INDEX time_range time TYPE minmax GRANULARITY 4
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, source, id);

-- Minute rollups, absolute: quantity and events are the window's state after journal offset `version`.
-- A window's value is the sum over source partitions and segments.
CREATE TABLE usage_rollups (
    tenant             String,
    meter              LowCardinality(String),
    dimensions         Map(LowCardinality(String), String),
    window_start       DateTime('UTC'),
    source_partition   UInt16,
    segment            UInt64,
    quantity           Decimal(38, 12),
    events             Int64,
    version            UInt64
) ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, meter, window_start, dimensions, source_partition, segment);

-- Each value of a meter whose totals do not add up (unique, max, min, latest, time-weighted).
CREATE TABLE usage_samples (
    tenant             String,
    meter              LowCardinality(String),
    dimensions         Map(LowCardinality(String), String),
    time               DateTime64(6, 'UTC'),
    source_partition   UInt16,
    source_offset      UInt64,
    source_index       Int32,
    quantity           Decimal(38, 12),
    text               String,
    removed            UInt8,
    version            UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, meter, time, source_partition, source_offset, source_index);

-- Which events were taken out, by what.
CREATE TABLE usage_corrections (
    tenant             String,
    target_source      String,
    target_id          String,
    kind               LowCardinality(String),
    source             String,
    id                 String,
    reason             String,
    range_start        DateTime64(6, 'UTC'),
    range_end          DateTime64(6, 'UTC'),
    received_at        DateTime64(3, 'UTC'),
    source_partition   UInt16,
    source_offset      UInt64,
    source_index       Int32,
    version            UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, target_source, target_id);

-- What was added to (or taken from) windows that were closed: counted already, marked for adjustment.
CREATE TABLE usage_late (
    tenant             String,
    meter              LowCardinality(String),
    dimensions         Map(LowCardinality(String), String),
    window_start       DateTime('UTC'),
    source_partition   UInt16,
    quantity           Decimal(38, 12),
    events             Int64,
    received_at        DateTime64(3, 'UTC'),
    version            UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, meter, window_start, dimensions, source_partition, version);

-- From which source offset on a partition counts a meter; what came before can be back-filled.
CREATE TABLE meter_activations (
    meter              LowCardinality(String),
    source_partition   UInt16,
    first_offset       UInt64,
    version            UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY (meter, source_partition);

-- What the usage of an open period costs so far (state 'running') and what was invoiced (state 'invoiced').
CREATE TABLE rated_usage (
    tenant             String,
    period             String,
    state              LowCardinality(String),
    reference          String,
    plan               LowCardinality(String),
    charge             LowCardinality(String),
    meter              LowCardinality(String),
    quantity           Decimal(38, 12),
    amount             Decimal(38, 12),
    currency           LowCardinality(String),
    rated_at           DateTime64(3, 'UTC'),
    version            UInt64,
    -- By which plan version the amount is: a subscription may change plans within a period.
    holding            String
) ENGINE = ReplacingMergeTree(version)
PRIMARY KEY (period, tenant, state, reference, charge, meter)
ORDER BY (period, tenant, state, reference, charge, meter, holding);

-- How far each stage is: for lag and freshness on dashboards. Kept 30 days.
CREATE TABLE pipeline_progress (
    at                 DateTime64(3, 'UTC'),
    stage              LowCardinality(String),
    source_partition   UInt16,
    next_offset        UInt64,
    end_offset         UInt64,
    events             UInt64,
    duplicates         UInt64,
    rejected           UInt64,
    freshness_ms       UInt64,
    watermark          DateTime64(6, 'UTC')
) ENGINE = MergeTree
ORDER BY (stage, source_partition, at)
TTL toDateTime(at) + INTERVAL 30 DAY;
