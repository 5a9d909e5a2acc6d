-- A segment may begin with a correction, so its events may be below zero.
ALTER TABLE usage_rollups MODIFY COLUMN events Int64;

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

ALTER TABLE pipeline_progress ADD COLUMN watermark DateTime64(6, 'UTC');
