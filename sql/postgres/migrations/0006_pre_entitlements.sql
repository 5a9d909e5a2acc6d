-- What a tenant may use: a metered feature counts a meter, a boolean one is on or off, a static one is any JSON value.
-- Every meter is a metered feature by its own name without a row here; `quota_limits` are its limits then.
CREATE TABLE features (
    feature_id         text PRIMARY KEY CHECK (feature_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    name               text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('metered', 'boolean', 'static')),
    meter_id           text REFERENCES meters,
    created_at         timestamptz NOT NULL,
    CHECK ((kind = 'metered') = (meter_id IS NOT NULL))
);

-- Given by a plan to all who subscribe to it, or to one tenant, whose own comes before its plan's.
CREATE TABLE entitlements (
    entitlement_id     text PRIMARY KEY,
    feature_id         text NOT NULL REFERENCES features,
    plan_id            text,
    tenant_id          text REFERENCES tenants,
    -- Metered: how much per period (none: no limit), and whether it stops (hard) or only tells.
    limit_quantity     numeric CHECK (limit_quantity >= 0),
    hard               boolean NOT NULL DEFAULT false,
    period             text CHECK (period IN ('month', 'billing', 'year', 'rolling')),
    rolling_hours      integer CHECK (rolling_hours BETWEEN 1 AND 744),
    -- Boolean: true or false; static: anything.
    value              jsonb,
    created_at         timestamptz NOT NULL,
    CHECK ((plan_id IS NULL) <> (tenant_id IS NULL)),
    CHECK ((period IS NULL) = (value IS NOT NULL)),
    CHECK ((period = 'rolling') = (rolling_hours IS NOT NULL)),
    CHECK (period IS NOT NULL OR (limit_quantity IS NULL AND NOT hard))
);
CREATE UNIQUE INDEX entitlements_by_tenant ON entitlements (tenant_id, feature_id) WHERE tenant_id IS NOT NULL;
CREATE UNIQUE INDEX entitlements_by_plan ON entitlements (plan_id, feature_id) WHERE plan_id IS NOT NULL;

-- An amount of a metered feature on top of its limit. Never changed: voided, and made anew. Instants are whole hours,
-- because live usage is known by the hour.
CREATE TABLE grants (
    grant_id           text PRIMARY KEY,
    tenant_id          text NOT NULL REFERENCES tenants,
    feature_id         text NOT NULL,
    amount             numeric NOT NULL CHECK (amount > 0),
    -- Lower is burned first, then what expires earlier, then what was created earlier.
    priority           integer NOT NULL CHECK (priority BETWEEN 0 AND 255),
    effective_at       timestamptz NOT NULL CHECK (date_trunc('hour', effective_at, 'UTC') = effective_at),
    expires_at         timestamptz CHECK (date_trunc('hour', expires_at, 'UTC') = expires_at),
    recurrence         text NOT NULL CHECK (recurrence IN ('none', 'monthly', 'yearly')),
    -- What may be left of it when the period resets: at least and at most; both 0 means nothing is carried over.
    rollover_min       numeric NOT NULL CHECK (rollover_min >= 0),
    rollover_max       numeric NOT NULL CHECK (rollover_max >= rollover_min),
    reason             text NOT NULL DEFAULT '',
    created_at         timestamptz NOT NULL,
    voided_at          timestamptz,
    CHECK (expires_at > effective_at)
);
CREATE INDEX grants_by_tenant ON grants (tenant_id, feature_id);

-- Written before Redis decides, so that a wiped Redis knows what is still held: it counts all that is not over.
CREATE TABLE reservations (
    reservation_id     text PRIMARY KEY,
    tenant_id          text NOT NULL REFERENCES tenants,
    meter_id           text NOT NULL REFERENCES meters,
    amount             numeric NOT NULL CHECK (amount > 0),
    status             text NOT NULL CHECK (status IN ('held', 'refused', 'committed', 'released', 'settled')),
    -- The usage event that will come of it; its arrival in the live total ends the reservation.
    source             text NOT NULL,
    event_id           text NOT NULL,
    -- SHA-256 of what was asked for: the same key with another question is refused.
    request_sha256     text NOT NULL,
    created_at         timestamptz NOT NULL,
    -- Until when it counts: the hold's end, and after a commit the end of the wait for its event.
    expires_at         timestamptz NOT NULL,
    settled_at         timestamptz,
    CHECK ((status = 'settled') = (settled_at IS NOT NULL))
);
CREATE INDEX reservations_open ON reservations (tenant_id, expires_at) WHERE status IN ('held', 'committed');

-- Live totals of periods that outlive the journal's retention, as the quota agent's book holds them.
CREATE TABLE quota_archive (
    partition          integer NOT NULL CHECK (partition >= 0),
    tenant_id          text NOT NULL,
    meter_id           text NOT NULL,
    period             text NOT NULL,
    -- Journal offset of its newest change.
    version            bigint NOT NULL,
    body               bytea NOT NULL,
    PRIMARY KEY (partition, tenant_id, meter_id, period)
);
