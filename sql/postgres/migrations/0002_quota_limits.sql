-- How much a tenant may use of a meter in a month, where the live quota reads it. Written when a tenant subscribes,
-- from the plan's included quantities and limits; a hard limit stops usage, a soft one only tells.
CREATE TABLE quota_limits (
    tenant_id          text NOT NULL REFERENCES tenants,
    meter_id           text NOT NULL REFERENCES meters,
    limit_quantity     numeric NOT NULL CHECK (limit_quantity >= 0),
    hard               boolean NOT NULL,
    unit               text NOT NULL,
    PRIMARY KEY (tenant_id, meter_id)
);

-- A plan that returns to what it once was gets a new version all the same: the newest version is the one to sell.
ALTER TABLE plan_versions DROP CONSTRAINT plan_versions_plan_id_digest_key;
