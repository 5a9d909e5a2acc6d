-- Catalogues get editions and dates, plan versions what they give besides prices, tenants contracts. What was sold or
-- agreed cannot be changed any more, by nobody.

-- Two contracts for the same tenant and plan never overlap; an index over text and ranges needs it.
CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row of % never changes once stored: store the next version instead', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

-- The versions of a catalogue file; the newest is what the stores hold.
CREATE TABLE catalogue_editions (
    catalogue          text NOT NULL,
    version            integer NOT NULL CHECK (version > 0),
    digest             text NOT NULL,
    -- From when on its plans are sold.
    effective_from     timestamptz NOT NULL,
    applied_at         timestamptz NOT NULL,
    PRIMARY KEY (catalogue, version)
);
CREATE TRIGGER catalogue_editions_never_change BEFORE UPDATE OR DELETE ON catalogue_editions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Sold from then on. What was stored before there were dates was sold as soon as it was stored.
ALTER TABLE plan_versions ADD COLUMN effective_from timestamptz NOT NULL DEFAULT 'epoch';
CREATE TRIGGER plan_versions_never_change BEFORE UPDATE OR DELETE ON plan_versions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What a catalogue gives belongs to a plan version; what is given by hand belongs to the plan and comes before it.
ALTER TABLE entitlements ADD COLUMN plan_version integer;
ALTER TABLE entitlements ADD FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions (plan_id, version);
ALTER TABLE entitlements ADD CONSTRAINT entitlements_version_check CHECK (plan_version IS NULL OR plan_id IS NOT NULL);
DROP INDEX entitlements_by_plan;
CREATE UNIQUE INDEX entitlements_by_plan ON entitlements (plan_id, plan_version, feature_id) NULLS NOT DISTINCT
    WHERE plan_id IS NOT NULL;
CREATE TRIGGER entitlements_of_versions_never_change BEFORE UPDATE OR DELETE ON entitlements
    FOR EACH ROW WHEN (OLD.plan_version IS NOT NULL) EXECUTE FUNCTION refuse_change();

-- What a tenant negotiated for a plan. A version's terms never change; an amendment is the next version, and the one
-- before it ends where the new one begins.
CREATE TABLE contracts (
    contract_id        text NOT NULL CHECK (contract_id ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
    version            integer NOT NULL CHECK (version > 0),
    tenant_id          text NOT NULL REFERENCES tenants,
    plan_id            text NOT NULL,
    valid_from         timestamptz NOT NULL CHECK (date_trunc('minute', valid_from, 'UTC') = valid_from),
    valid_until        timestamptz CHECK (date_trunc('minute', valid_until, 'UTC') = valid_until),
    -- The terms as they were handed in, and what they make of the plan, in the plan's own form.
    document           jsonb NOT NULL,
    digest             text NOT NULL,
    overrides          jsonb NOT NULL,
    -- How parts of a period are counted, and after how many days an invoice is due; null: as without a contract.
    convention         text CHECK (convention IN ('days', 'seconds', 'thirty_day_month', 'none')),
    net_days           integer CHECK (net_days BETWEEN 0 AND 365),
    created_at         timestamptz NOT NULL,
    -- When the end was brought forward (by ending or amending), or the version withdrawn before it began.
    shortened_at       timestamptz,
    withdrawn_at       timestamptz,
    PRIMARY KEY (contract_id, version),
    CHECK (valid_from < valid_until),
    CONSTRAINT contracts_never_overlap EXCLUDE USING gist
        (tenant_id WITH =, plan_id WITH =, tstzrange(valid_from, valid_until) WITH &&) WHERE (withdrawn_at IS NULL)
);
CREATE INDEX contracts_by_tenant ON contracts (tenant_id, valid_from);

-- Only the end may change, and only to an earlier one from which on nothing was invoiced.
CREATE FUNCTION guard_contract() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ends CONSTANT text[] := '{valid_until,shortened_at,withdrawn_at}';
    free_from timestamptz;
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'contract % v% cannot be deleted: end it instead', OLD.contract_id, OLD.version
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF to_jsonb(NEW) - ends <> to_jsonb(OLD) - ends OR OLD.withdrawn_at IS NOT NULL
       OR (NEW.withdrawn_at IS NOT NULL AND NEW.valid_until IS DISTINCT FROM OLD.valid_until)
       OR (NEW.valid_until IS DISTINCT FROM OLD.valid_until
           AND (NEW.valid_until IS NULL OR NEW.valid_until > OLD.valid_until)) THEN
        RAISE EXCEPTION 'contract % v% never changes but for an earlier end: amend it instead',
            OLD.contract_id, OLD.version USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    free_from := CASE WHEN NEW.withdrawn_at IS NULL THEN NEW.valid_until ELSE OLD.valid_from END;
    IF EXISTS (
        SELECT FROM invoices
        WHERE tenant_id = OLD.tenant_id AND status NOT IN ('draft', 'void')
          AND least(period_end, issued_at) > free_from AND period_start < coalesce(OLD.valid_until, 'infinity')
    ) THEN
        RAISE EXCEPTION 'contract % v% was invoiced beyond %', OLD.contract_id, OLD.version, free_from
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER contracts_guarded BEFORE UPDATE OR DELETE ON contracts
    FOR EACH ROW EXECUTE FUNCTION guard_contract();
