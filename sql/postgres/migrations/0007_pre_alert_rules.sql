-- Thresholds as rules, every alert on record, outgoing webhooks, and the state of spend alerts and anomalies.

-- When people are told, and through which channels. For each kind the most specific level that has a rule decides:
-- tenant and meter, tenant, meter, everyone; a disabled rule silences its level.
CREATE TABLE alert_rules (
    rule_id            text PRIMARY KEY CHECK (rule_id ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    kind               text NOT NULL CHECK (kind IN ('percent', 'units', 'money', 'anomaly')),
    -- Percent of the limit, units of the meter, or an amount of money; anomalies have none.
    value              numeric CHECK (value > 0),
    -- Without a tenant for every tenant; without a meter for every meter, money then of all the tenant pays.
    tenant_id          text REFERENCES tenants,
    meter_id           text REFERENCES meters,
    charge_id          text,
    currency           text CHECK (currency ~ '^[A-Z]{3}$'),
    -- Empty: every channel that is set up.
    channels           text[] NOT NULL DEFAULT '{}' CHECK (channels <@ ARRAY['slack', 'email', 'webhook']),
    enabled            boolean NOT NULL DEFAULT true,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CHECK ((kind = 'anomaly') = (value IS NULL)),
    CHECK ((kind = 'money') = (currency IS NOT NULL)),
    CHECK (kind <> 'units' OR meter_id IS NOT NULL),
    CHECK (charge_id IS NULL OR (kind = 'money' AND meter_id IS NULL))
);
CREATE UNIQUE INDEX alert_rules_said_once ON alert_rules (kind, value, tenant_id, meter_id, charge_id, currency)
    NULLS NOT DISTINCT;

-- Every alert once, whatever channels there are; claimed in the transaction that claims its deliveries.
CREATE TABLE alerts (
    alert_id           text PRIMARY KEY,
    kind               text NOT NULL CHECK (kind IN ('quota', 'spend', 'anomaly')),
    tenant_id          text NOT NULL,
    meter_id           text,
    period             text NOT NULL,
    headline           text NOT NULL,
    -- The message the alert was made from: what was reached, when, and the figures.
    payload            jsonb NOT NULL,
    created_at         timestamptz NOT NULL
);
CREATE INDEX alerts_by_time ON alerts (created_at, alert_id);
CREATE INDEX alerts_by_tenant ON alerts (tenant_id, created_at, alert_id);
INSERT INTO alerts (alert_id, kind, tenant_id, meter_id, period, headline, payload, created_at)
SELECT DISTINCT ON (alert_id) alert_id, 'quota', tenant_id, payload ->> 'meter', payload ->> 'period',
       tenant_id || ' has used ' || (payload ->> 'percent') || ' % of its ' || (payload ->> 'meter') || ' limit',
       payload, created_at
FROM alert_deliveries ORDER BY alert_id, created_at;

ALTER TABLE alert_deliveries ADD COLUMN kind text NOT NULL DEFAULT 'quota'
    CHECK (kind IN ('quota', 'spend', 'anomaly'));

-- Where events go out to, signed (Standard Webhooks). The secret is shown once, when it is made; it is kept in clear
-- here until fields are encrypted, so it stays out of every answer and log.
CREATE TABLE webhook_endpoints (
    endpoint_id        text PRIMARY KEY CHECK (endpoint_id ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    -- Without a tenant: the events of every tenant.
    tenant_id          text REFERENCES tenants,
    url                text NOT NULL,
    -- Empty: events of every type.
    event_types        text[] NOT NULL DEFAULT '{}',
    enabled            boolean NOT NULL DEFAULT true,
    -- Why it was disabled when no person did it: the receiver answered 410.
    disabled_reason    text,
    secret             text NOT NULL,
    -- While a secret rotates, messages are signed with both.
    previous_secret    text,
    previous_secret_until timestamptz,
    -- An endpoint that did not answer is left alone until then, so that it holds nobody else up.
    paused_until       timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL))
);

-- One row per message and endpoint, written in the transaction of what it tells.
CREATE TABLE webhook_deliveries (
    message_id         text NOT NULL,
    endpoint_id        text NOT NULL REFERENCES webhook_endpoints,
    event_type         text NOT NULL,
    tenant_id          text NOT NULL,
    body               bytea NOT NULL CHECK (length(body) <= 20480),
    status             text NOT NULL CHECK (status IN ('pending', 'sent', 'refused')),
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz NOT NULL,
    last_error         text,
    created_at         timestamptz NOT NULL,
    sent_at            timestamptz,
    PRIMARY KEY (message_id, endpoint_id),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX webhook_deliveries_open ON webhook_deliveries (next_attempt_at) WHERE status = 'pending';

-- Whether a money threshold is reached, as of the running cost of `version`, and how often it was left again.
CREATE TABLE spend_alert_states (
    tenant_id          text NOT NULL,
    period             text NOT NULL,
    scope              text NOT NULL,
    currency           text NOT NULL,
    threshold          numeric NOT NULL,
    reached            boolean NOT NULL,
    arming             integer NOT NULL CHECK (arming >= 0),
    amount             numeric NOT NULL,
    version            bigint NOT NULL,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, period, scope, currency, threshold)
);

-- Stretches of unusual usage: one alert each. Open while usage has not been as usual again for a while.
CREATE TABLE anomaly_episodes (
    tenant_id          text NOT NULL,
    meter_id           text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('jump', 'drop', 'silence')),
    started_at         timestamptz NOT NULL,
    last_seen_at       timestamptz NOT NULL,
    calm_windows       integer NOT NULL DEFAULT 0 CHECK (calm_windows >= 0),
    ended_at           timestamptz,
    PRIMARY KEY (tenant_id, meter_id, kind, started_at)
);
CREATE UNIQUE INDEX one_open_anomaly ON anomaly_episodes (tenant_id, meter_id, kind) WHERE ended_at IS NULL;

-- Up to which hour each meter's usage was looked at; what comes late for an hour before is not judged again.
CREATE TABLE anomaly_progress (
    meter_id           text PRIMARY KEY REFERENCES meters,
    judged_until       timestamptz NOT NULL
);
