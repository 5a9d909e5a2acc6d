-- Up to where the journal was compared with the raw topic, by source partition, and the sums so far: events received
-- (counted from the raw records themselves) and what became of them (as the journal says).
CREATE TABLE reconciliation_progress (
    source_partition   integer PRIMARY KEY,
    next_journal       bigint NOT NULL,
    last_source        bigint NOT NULL,
    received           bigint NOT NULL DEFAULT 0,
    accepted           bigint NOT NULL DEFAULT 0,
    duplicates         bigint NOT NULL DEFAULT 0,
    rejected           bigint NOT NULL DEFAULT 0,
    misplaced          bigint NOT NULL DEFAULT 0
);

-- Hours of a tenant's usage that the journal touched and that are to be compared in ClickHouse and Redis.
CREATE TABLE reconciliation_pending (
    tenant_id          text NOT NULL,
    hour               timestamptz NOT NULL,
    -- The newest journal entry that touched it.
    version            bigint NOT NULL,
    first_touched_at   timestamptz NOT NULL,
    touched_at         timestamptz NOT NULL,
    checked_at         timestamptz,
    PRIMARY KEY (tenant_id, hour)
);

-- Every gap that was confirmed: two sides that must be equal and were not. Closed when it is gone.
CREATE TABLE reconciliation_gaps (
    gap_id             text PRIMARY KEY,
    -- What was compared: 'journal' (raw topic and journal), 'rollups', 'samples' (raw events and ClickHouse's rows),
    -- 'quotas' (ClickHouse and Redis).
    check_name         text NOT NULL CHECK (check_name IN ('journal', 'rollups', 'samples', 'quotas')),
    tenant_id          text NOT NULL,
    meter_id           text NOT NULL,
    dimensions         text[] NOT NULL,
    -- The hour (UTC), month, or range of source offsets.
    span               text NOT NULL,
    source_partition   integer NOT NULL,
    expected_quantity  numeric NOT NULL,
    found_quantity     numeric NOT NULL,
    expected_events    bigint NOT NULL,
    found_events       bigint NOT NULL,
    found_at           timestamptz NOT NULL,
    seen_at            timestamptz NOT NULL,
    closed_at          timestamptz,
    -- What was done about it, in words; '' if nothing.
    repair             text NOT NULL DEFAULT ''
);
CREATE INDEX reconciliation_gaps_open ON reconciliation_gaps (check_name) WHERE closed_at IS NULL;

CREATE TABLE reconciliation_runs (
    run_id             uuid PRIMARY KEY,
    scope              text NOT NULL,
    started_at         timestamptz NOT NULL,
    finished_at        timestamptz NOT NULL,
    checked            bigint NOT NULL,
    unsettled          bigint NOT NULL,
    gaps               bigint NOT NULL
);
CREATE INDEX reconciliation_runs_by_time ON reconciliation_runs (finished_at);
