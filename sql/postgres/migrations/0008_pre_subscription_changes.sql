-- Subscriptions change over time, and a tenant may have several.

ALTER TABLE subscriptions
    DROP CONSTRAINT subscriptions_check,
    -- Equal if it was cancelled before it began.
    ADD CONSTRAINT subscriptions_check CHECK (ended_at IS NULL OR ended_at >= started_at),
    ADD COLUMN quantity numeric NOT NULL DEFAULT 1 CHECK (quantity >= 0),
    ADD COLUMN add_ons jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN trial_ends_at timestamptz,
    ADD COLUMN billing_interval text NOT NULL DEFAULT 'month' CHECK (billing_interval IN ('month', 'quarter', 'year')),
    ADD COLUMN anchor date,
    ADD COLUMN convention text NOT NULL DEFAULT 'days'
        CHECK (convention IN ('days', 'seconds', 'thirty_day_month', 'none')),
    ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN recorded_by text NOT NULL DEFAULT '',
    ADD COLUMN request_key text,
    ADD COLUMN request_sha256 text,
    ADD CONSTRAINT subscriptions_trial_check CHECK (trial_ends_at > started_at),
    ADD CONSTRAINT subscriptions_request_check CHECK ((request_key IS NULL) = (request_sha256 IS NULL));
DROP INDEX one_open_subscription_per_tenant;
CREATE INDEX subscriptions_by_tenant ON subscriptions (tenant_id, started_at);
CREATE UNIQUE INDEX subscriptions_asked_for_once ON subscriptions (tenant_id, request_key);

-- Every change of a subscription, only ever added to: from when it counts, when it was put down, by whom and why.
-- What is held at any instant, as known now or as known then, is replayed from here (rating.domain.timeline).
CREATE TABLE subscription_changes (
    subscription_id    text NOT NULL REFERENCES subscriptions,
    -- In the order they were put down.
    sequence           integer NOT NULL CHECK (sequence > 0),
    kind               text NOT NULL CHECK (kind IN (
        'plan_changed', 'migrated', 'quantity_changed', 'add_on_added', 'add_on_removed', 'trial_ended', 'paused',
        'resumed', 'canceled', 'reactivated', 'renewed', 'withdrawn')),
    -- Whole minutes: usage is kept by the minute, and no minute may belong to two phases.
    effective_at       timestamptz NOT NULL CHECK (date_trunc('minute', effective_at, 'UTC') = effective_at),
    recorded_at        timestamptz NOT NULL,
    payload            jsonb NOT NULL DEFAULT '{}',
    recorded_by        text NOT NULL,
    reason             text NOT NULL DEFAULT '',
    -- The request behind it (one request may make several changes): the same key is the same request, done once, and
    -- with another body (SHA-256 of its canonical JSON) it is refused.
    request_key        text NOT NULL,
    request_sha256     text NOT NULL,
    PRIMARY KEY (subscription_id, sequence)
);
CREATE INDEX subscription_changes_by_request ON subscription_changes (subscription_id, request_key);

CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added: withdraw a change by another', TG_TABLE_NAME;
END $$;
CREATE TRIGGER subscription_changes_only_grow BEFORE UPDATE OR DELETE ON subscription_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_rewriting();

-- What the changes come to, as known now: replaced in the transaction of each change, for queries that cannot replay.
CREATE TABLE subscription_phases (
    subscription_id    text NOT NULL REFERENCES subscriptions,
    starts_at          timestamptz NOT NULL,
    ends_at            timestamptz,
    plan_id            text NOT NULL,
    plan_version       integer NOT NULL,
    quantity           numeric NOT NULL CHECK (quantity >= 0),
    -- [{"plan_id", "plan_version", "quantity"}]
    add_ons            jsonb NOT NULL DEFAULT '[]',
    state              text NOT NULL CHECK (state IN ('trial', 'active', 'paused')),
    PRIMARY KEY (subscription_id, starts_at),
    FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions (plan_id, version),
    CHECK (ends_at IS NULL OR ends_at > starts_at)
);

-- The plans that tenants hold at this moment, add-ons included. A subscription without phases is from before there were
-- any and never changed.
CREATE VIEW held_plans AS
SELECT s.tenant_id, s.subscription_id, held.plan_id, held.plan_version
FROM subscriptions s JOIN subscription_phases p USING (subscription_id) CROSS JOIN LATERAL (
    SELECT p.plan_id, p.plan_version
    UNION ALL
    SELECT one ->> 'plan_id', (one ->> 'plan_version')::integer FROM jsonb_array_elements(p.add_ons) AS one
) AS held
WHERE p.starts_at <= now() AND (p.ends_at IS NULL OR p.ends_at > now())
UNION ALL
SELECT s.tenant_id, s.subscription_id, s.plan_id, s.plan_version FROM subscriptions s
WHERE (s.ended_at IS NULL OR s.ended_at > greatest(now(), s.started_at))
AND NOT EXISTS (SELECT FROM subscription_phases p WHERE p.subscription_id = s.subscription_id);

-- Limits get a stretch of time. The rows move to a table of another name; the name they had becomes a view of the present
-- ones, through which programs from before go on reading and writing.
CREATE TABLE quota_limit_phases (
    tenant_id          text NOT NULL REFERENCES tenants,
    meter_id           text NOT NULL REFERENCES meters,
    limit_quantity     numeric NOT NULL CHECK (limit_quantity >= 0),
    hard               boolean NOT NULL,
    unit               text NOT NULL,
    effective_from     timestamptz NOT NULL DEFAULT '-infinity',
    effective_until    timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (tenant_id, meter_id, effective_from),
    CHECK (effective_from < effective_until)
);
INSERT INTO quota_limit_phases (tenant_id, meter_id, limit_quantity, hard, unit)
SELECT tenant_id, meter_id, limit_quantity, hard, unit FROM quota_limits;
DROP TABLE quota_limits;

-- The limits of this moment, where the live quota reads them.
CREATE VIEW quota_limits AS
SELECT tenant_id, meter_id, limit_quantity, hard, unit FROM quota_limit_phases
WHERE effective_from <= now() AND now() < effective_until;
