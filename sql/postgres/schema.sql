-- PostgreSQL: the truth of money. The present schema; migrations/ lead here (tests/sql keeps both equal).
-- Amounts and quantities are numeric, instants timestamptz, periods half-open [start, end).

-- Two contracts for the same tenant and plan never overlap; an index over text and ranges needs it.
CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row of % never changes once stored: store the next version instead', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TABLE tenants (
    tenant_id          text PRIMARY KEY CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    name               text NOT NULL,
    email              text NOT NULL,
    address            text NOT NULL DEFAULT '',
    country            text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    -- The tenant's calendar: its months, and the day on which its billing periods begin.
    time_zone          text NOT NULL DEFAULT 'UTC',
    billing_anchor_day integer NOT NULL DEFAULT 1 CHECK (billing_anchor_day BETWEEN 1 AND 31),
    created_at         timestamptz NOT NULL,
    -- An account is parked when an invariant broke: nothing is invoiced until a person looked.
    parked_reason      text,
    parked_at          timestamptz,
    -- One document for all of a tenant's subscriptions whose billing period and currency are the same.
    consolidated_invoices boolean NOT NULL DEFAULT false,
    state              text NOT NULL DEFAULT '' CHECK (state ~ '^([A-Z0-9]{1,3})?$'),
    postal_code        text NOT NULL DEFAULT '' CHECK (length(postal_code) <= 12),
    is_business        boolean NOT NULL DEFAULT true,
    vat_number         text NOT NULL DEFAULT '' CHECK (vat_number ~ '^([A-Z0-9]{2,20})?$'),
    -- Why no tax is charged, in a sentence for the invoice, and its VATEX code if it has one.
    tax_exempt         text NOT NULL DEFAULT '',
    tax_exempt_code    text NOT NULL DEFAULT '',
    language           text NOT NULL DEFAULT 'en' CHECK (language ~ '^[a-z]{2}$'),
    -- What VIES said last of the number. Null: not checked yet.
    vat_valid          boolean,
    vat_checked_at     timestamptz,
    CHECK ((parked_reason IS NULL) = (parked_at IS NULL)),
    CONSTRAINT tenants_vat_check CHECK (
        (vat_valid IS NULL) = (vat_checked_at IS NULL) AND (vat_valid IS NULL OR vat_number <> '')),
    CONSTRAINT tenants_exempt_check CHECK (tax_exempt <> '' OR tax_exempt_code = '')
);

-- Every answer VIES gave, with the consultation number that proves it. Never changes.
CREATE TABLE vat_checks (
    tenant_id          text NOT NULL REFERENCES tenants,
    vat_number         text NOT NULL,
    checked_at         timestamptz NOT NULL,
    valid              boolean NOT NULL,
    consultation       text NOT NULL DEFAULT '',
    requester          text NOT NULL DEFAULT '',
    name               text NOT NULL DEFAULT '',
    address            text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_id, vat_number, checked_at)
);
CREATE TRIGGER vat_checks_never_change BEFORE UPDATE OR DELETE ON vat_checks
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE meters (
    meter_id           text PRIMARY KEY,
    unit               text NOT NULL,
    event_type         text NOT NULL,
    aggregation        text NOT NULL CHECK (aggregation IN (
        'sum', 'count', 'average', 'unique', 'max', 'min', 'latest', 'time_weighted')),
    value_property     text,
    dimensions         text[] NOT NULL DEFAULT '{}',
    -- Conditions on the event's data, all of which must hold: [{"property", "operator", "values"}].
    filters            jsonb NOT NULL DEFAULT '[]',
    weight_per         text CHECK (weight_per IN ('second', 'hour', 'month')),
    allowed_lateness_seconds integer NOT NULL DEFAULT 3600 CHECK (allowed_lateness_seconds >= 0),
    created_at         timestamptz NOT NULL,
    CHECK ((aggregation = 'count') = (value_property IS NULL)),
    CONSTRAINT meters_weight_check CHECK ((aggregation = 'time_weighted') = (weight_per IS NOT NULL))
);

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

-- A plan version is immutable once stored; a changed catalogue makes the next version.
CREATE TABLE plan_versions (
    plan_id            text NOT NULL,
    version            integer NOT NULL CHECK (version > 0),
    catalogue          text NOT NULL,
    digest             text NOT NULL,
    document           jsonb NOT NULL,
    created_at         timestamptz NOT NULL,
    -- Sold from then on. What was stored before there were dates was sold as soon as it was stored.
    effective_from     timestamptz NOT NULL DEFAULT 'epoch',
    -- A plan that returns to what it once was gets a new version all the same: the newest version is the one to sell.
    PRIMARY KEY (plan_id, version)
);
CREATE TRIGGER plan_versions_never_change BEFORE UPDATE OR DELETE ON plan_versions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

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

-- What a subscription began with; what came after stands in subscription_changes. Only ended_at follows, as known now.
CREATE TABLE subscriptions (
    subscription_id    text PRIMARY KEY,
    tenant_id          text NOT NULL REFERENCES tenants,
    plan_id            text NOT NULL,
    plan_version       integer NOT NULL,
    -- The contract's overrides of the plan (negotiated base, minimum, prices), in the plan's own form.
    overrides          jsonb NOT NULL DEFAULT '{}',
    started_at         timestamptz NOT NULL,
    ended_at           timestamptz,
    -- What licensed prices multiply by (seats).
    quantity           numeric NOT NULL DEFAULT 1 CHECK (quantity >= 0),
    -- [{"plan_id", "plan_version", "quantity"}]
    add_ons            jsonb NOT NULL DEFAULT '[]',
    trial_ends_at      timestamptz,
    -- The billing cycle: periods of this length, counted from the local day of the anchor. Without an anchor: the
    -- tenant's calendar.
    billing_interval   text NOT NULL DEFAULT 'month' CHECK (billing_interval IN ('month', 'quarter', 'year')),
    anchor             date,
    convention         text NOT NULL DEFAULT 'days'
                       CHECK (convention IN ('days', 'seconds', 'thirty_day_month', 'none')),
    recorded_at        timestamptz NOT NULL DEFAULT now(),
    recorded_by        text NOT NULL DEFAULT '',
    request_key        text,
    request_sha256     text,
    FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions (plan_id, version),
    -- Equal if it was cancelled before it began.
    CHECK (ended_at IS NULL OR ended_at >= started_at),
    CONSTRAINT subscriptions_trial_check CHECK (trial_ends_at > started_at),
    CONSTRAINT subscriptions_request_check CHECK ((request_key IS NULL) = (request_sha256 IS NULL))
);
-- A tenant may have several; that no meter is priced twice is seen to under the lock on the tenant's row.
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

-- How much a tenant may use of a meter in a month, and in which stretch of time that limit counts; the stretches follow
-- the phases of the tenant's subscriptions, so a change of plan changes the limits at the very moment it counts.
-- A hard limit stops usage, a soft one only tells.
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

-- The limits of this moment, where the live quota reads them.
CREATE VIEW quota_limits AS
SELECT tenant_id, meter_id, limit_quantity, hard, unit FROM quota_limit_phases
WHERE effective_from <= now() AND now() < effective_until;

-- Numbers without gaps: the row is locked and raised in the transaction that finalizes the invoice.
CREATE TABLE invoice_series (
    series             text PRIMARY KEY,
    next_number        bigint NOT NULL DEFAULT 1 CHECK (next_number > 0)
);

CREATE TABLE invoices (
    invoice_id         text PRIMARY KEY,
    tenant_id          text NOT NULL REFERENCES tenants,
    -- Null: one-time items need none.
    subscription_id    text REFERENCES subscriptions,
    period_start       timestamptz NOT NULL,
    period_end         timestamptz NOT NULL,
    -- 1 is the period's invoice, 2 and on bill what came after it was finalized.
    sequence           integer NOT NULL CHECK (sequence > 0),
    status             text NOT NULL CHECK (status IN ('draft', 'finalized', 'paid', 'overdue', 'void', 'uncollectible')),
    number             text UNIQUE,
    currency           text NOT NULL,
    subtotal           numeric NOT NULL,
    tax                numeric NOT NULL DEFAULT 0,
    total              numeric NOT NULL,
    amount_paid        numeric NOT NULL DEFAULT 0,
    issued_at          timestamptz,
    due_at             timestamptz,
    paid_at            timestamptz,
    -- What the document showed, as canonical JSON, and its SHA-256: the PDF is made from this and nothing else.
    snapshot           jsonb NOT NULL,
    snapshot_sha256    text NOT NULL,
    engine_version     text NOT NULL,
    -- What prepaid and promotional credit paid of the total; the rest is due.
    credits_applied    numeric NOT NULL DEFAULT 0,
    amount_due         numeric GENERATED ALWAYS AS (
        CASE kind WHEN 'credit_note' THEN 0 ELSE total - credits_applied - amount_credited END) STORED,
    kind               text NOT NULL DEFAULT 'invoice' CHECK (kind IN ('invoice', 'credit_note')),
    -- What it came from: a billing period, items put down by a person, less owed than billed, given back by a person,
    -- the taking back of an invoice that is issued anew.
    origin             text NOT NULL DEFAULT 'period'
                       CHECK (origin IN ('period', 'one_time', 'correction', 'manual', 'reissue')),
    -- Why: of a credit note, a void, a write-off. For people.
    reason             text NOT NULL DEFAULT '',
    -- What a document by a person's hand said, as a digest: the same key with something else is refused.
    asked_sha256       text,
    -- The invoice that this one is issued anew for.
    replaces           text REFERENCES invoices,
    -- What credit notes took off what was open; what they gave back beyond is in credit_note_applications.
    amount_credited    numeric NOT NULL DEFAULT 0,
    -- Of a draft: when its grace is over.
    finalize_at        timestamptz,
    -- When it was voided or written off.
    closed_at          timestamptz,
    UNIQUE (subscription_id, period_start, sequence),
    CHECK (period_start < period_end),
    CHECK (total = subtotal + tax),
    CONSTRAINT invoices_subscription_check CHECK (
        subscription_id IS NOT NULL OR origin IN ('one_time', 'correction', 'manual', 'reissue')),
    CONSTRAINT invoices_amounts_check CHECK (
        CASE kind WHEN 'credit_note' THEN total <= 0 AND amount_paid = 0 AND amount_credited = 0
                  ELSE total >= 0 AND amount_paid >= 0 AND amount_credited >= 0 END),
    CONSTRAINT invoices_check3 CHECK ((status = 'draft') = (number IS NULL)),
    CONSTRAINT invoices_check4 CHECK ((number IS NULL) = (issued_at IS NULL) AND (number IS NULL) = (due_at IS NULL)),
    CONSTRAINT invoices_check5 CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
    CONSTRAINT invoices_credits_check CHECK (
        credits_applied >= 0 AND credits_applied <= greatest(total, 0)
        AND amount_paid <= greatest(total, 0) - credits_applied - amount_credited),
    CONSTRAINT invoices_draft_check CHECK ((status = 'draft') = (finalize_at IS NOT NULL)),
    -- Where the invoice is in another currency than the seller's tax returns: how much of theirs one unit of its is, and
    -- the tax in it (VAT Directive, Art. 230).
    exchange_rate      numeric CHECK (exchange_rate > 0),
    exchange_currency  text,
    exchange_date      date,
    exchange_tax       numeric,
    CONSTRAINT invoices_exchange_check CHECK (
        (exchange_rate IS NULL) = (exchange_currency IS NULL) AND (exchange_rate IS NULL) = (exchange_date IS NULL)
        AND (exchange_rate IS NULL) = (exchange_tax IS NULL))
);
CREATE INDEX invoices_by_tenant ON invoices (tenant_id, period_start);
CREATE INDEX invoices_by_grace ON invoices (finalize_at) WHERE status = 'draft';

CREATE TABLE invoice_lines (
    invoice_id         text NOT NULL REFERENCES invoices,
    position           integer NOT NULL CHECK (position > 0),
    -- What the line bills, independent of amount: subscription, charge, dimension values, period. A later run compares by it.
    item_key           text NOT NULL,
    charge_id          text NOT NULL,
    kind               text NOT NULL CHECK (kind IN (
        'fixed', 'licensed', 'usage', 'minimum', 'maximum', 'true_up', 'discount', 'one_time', 'coupon')),
    description        text NOT NULL,
    meter_id           text,
    dimensions         jsonb NOT NULL DEFAULT '{}',
    quantity           numeric NOT NULL,
    unit               text NOT NULL DEFAULT '',
    unit_amount        numeric,
    exact_amount       numeric NOT NULL,
    amount             numeric NOT NULL,
    -- Set when this line bills a difference to an item an earlier invoice billed.
    corrects_invoice   text REFERENCES invoices,
    price_digest       text NOT NULL,
    -- How the line came about: plan version, tiers, query name and window, digest of the rollups, quantities by hour.
    evidence           jsonb NOT NULL,
    -- What the line is for: a month's fee, a year's, the next month's in advance. NULL: the invoice's period.
    period_start       timestamptz,
    period_end         timestamptz,
    -- Start of the billing period whose account the line settles, whatever invoice it stands on. NULL: the invoice's.
    settles            timestamptz,
    PRIMARY KEY (invoice_id, position),
    -- Given back by hand: the item stays billed, so it is not billed again.
    adjusts            boolean NOT NULL DEFAULT false,
    -- Null: the invoice's own.
    subscription_id    text REFERENCES subscriptions,
    -- How the line is taxed, as it was decided; lines from before there was tax were not.
    tax_treatment      jsonb NOT NULL DEFAULT '{"category": "O", "rate": "0", "place": "", "behavior": "exclusive"}',
    tax_amount         numeric NOT NULL DEFAULT 0,
    -- Of a line that takes something back: the invoice whose tax it lowers. Null: taxed with its own invoice.
    tax_origin         text REFERENCES invoices,
    tax_category       text GENERATED ALWAYS AS (tax_treatment ->> 'category') STORED,
    tax_rate           numeric GENERATED ALWAYS AS ((tax_treatment ->> 'rate')::numeric) STORED,
    CONSTRAINT invoice_lines_tax_check CHECK (
        tax_category IN ('S', 'Z', 'E', 'AE', 'K', 'G', 'O') AND tax_rate >= 0 AND (tax_category = 'S' OR tax_rate = 0)),
    CONSTRAINT invoice_lines_item_once UNIQUE NULLS NOT DISTINCT (invoice_id, item_key, corrects_invoice),
    CONSTRAINT invoice_lines_period_check CHECK (
        period_start < period_end AND (period_start IS NULL) = (period_end IS NULL)
        AND (period_start IS NULL) = (settles IS NULL))
);
CREATE INDEX invoice_lines_by_item ON invoice_lines (item_key);
CREATE INDEX invoice_lines_by_corrected ON invoice_lines (corrects_invoice) WHERE corrects_invoice IS NOT NULL;
CREATE INDEX invoice_lines_by_subscription ON invoice_lines (subscription_id) WHERE subscription_id IS NOT NULL;
CREATE INDEX invoice_lines_by_tax_origin ON invoice_lines (tax_origin) WHERE tax_origin IS NOT NULL;

-- An invoice's tax by category, rate and place: base and tax add up to its subtotal and tax.
CREATE TABLE invoice_taxes (
    invoice_id         text NOT NULL REFERENCES invoices,
    category           text NOT NULL CHECK (category IN ('S', 'Z', 'E', 'AE', 'K', 'G', 'O')),
    rate               numeric NOT NULL CHECK (rate >= 0 AND rate < 100),
    -- Where it is taxed, such as DE or US-CA; '' is nowhere.
    place              text NOT NULL,
    kind               text NOT NULL DEFAULT '',
    base               numeric NOT NULL,
    tax                numeric NOT NULL,
    reason_code        text NOT NULL DEFAULT '',
    note_code          text NOT NULL DEFAULT '',
    note               text NOT NULL DEFAULT '',
    PRIMARY KEY (invoice_id, category, rate, place),
    CHECK (category = 'S' OR rate = 0)
);

-- Where a credit note's value went, by invoice: off what was open, back to the credits the invoice had drawn, and what had
-- been paid as a new credit. Together they are the credit note's total.
CREATE TABLE credit_note_applications (
    credit_note_id     text NOT NULL REFERENCES invoices,
    invoice_id         text NOT NULL REFERENCES invoices,
    amount             numeric NOT NULL CHECK (amount >= 0),
    credits_returned   numeric NOT NULL CHECK (credits_returned >= 0),
    credit_granted     numeric NOT NULL CHECK (credit_granted >= 0),
    applied_at         timestamptz NOT NULL,
    PRIMARY KEY (credit_note_id, invoice_id),
    CHECK (amount + credits_returned + credit_granted > 0)
);
CREATE INDEX credit_note_applications_by_invoice ON credit_note_applications (invoice_id);

CREATE TABLE invoice_documents (
    invoice_id         text NOT NULL REFERENCES invoices,
    media_type         text NOT NULL,
    location           text NOT NULL,
    sha256             text NOT NULL,
    bytes              bigint NOT NULL CHECK (bytes > 0),
    rendered_at        timestamptz NOT NULL,
    PRIMARY KEY (invoice_id, media_type)
);

-- Documents on their way to a customer: one row per document and address, retried until it is out or given up.
CREATE TABLE document_deliveries (
    invoice_id         text NOT NULL REFERENCES invoices,
    channel            text NOT NULL CHECK (channel IN ('email')),
    address            text NOT NULL,
    tenant_id          text NOT NULL REFERENCES tenants,
    status             text NOT NULL CHECK (status IN ('pending', 'sent', 'refused')),
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz NOT NULL,
    last_error         text,
    created_at         timestamptz NOT NULL,
    sent_at            timestamptz,
    PRIMARY KEY (invoice_id, channel, address),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX document_deliveries_open ON document_deliveries (next_attempt_at) WHERE status = 'pending';

-- Documents that somebody asked to be sent once more, once per key; tried like deliveries.
CREATE TABLE document_resends (
    resend_id          text PRIMARY KEY,
    invoice_id         text NOT NULL REFERENCES invoices,
    channel            text NOT NULL CHECK (channel IN ('email')),
    address            text NOT NULL,
    tenant_id          text NOT NULL REFERENCES tenants,
    status             text NOT NULL CHECK (status IN ('pending', 'sent', 'refused')),
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz NOT NULL,
    last_error         text,
    created_at         timestamptz NOT NULL,
    sent_at            timestamptz,
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX document_resends_open ON document_resends (next_attempt_at) WHERE status = 'pending';
CREATE INDEX document_resends_by_invoice ON document_resends (invoice_id);

-- What was recorded of a document before other bytes took its place; nothing is forgotten.
CREATE TABLE replaced_documents (
    invoice_id         text NOT NULL REFERENCES invoices,
    media_type         text NOT NULL,
    location           text NOT NULL,
    sha256             text NOT NULL,
    bytes              bigint NOT NULL CHECK (bytes > 0),
    rendered_at        timestamptz NOT NULL,
    replaced_at        timestamptz NOT NULL,
    replaced_by        text NOT NULL,
    PRIMARY KEY (invoice_id, media_type, sha256, replaced_by)
);

-- One row per attempt, committed as 'pending' before the provider is called.
CREATE TABLE payments (
    payment_id         text PRIMARY KEY,
    invoice_id         text NOT NULL REFERENCES invoices,
    tenant_id          text NOT NULL REFERENCES tenants,
    attempt            integer NOT NULL CHECK (attempt > 0),
    provider           text NOT NULL,
    provider_reference text,
    amount             numeric NOT NULL CHECK (amount > 0),
    currency           text NOT NULL,
    status             text NOT NULL
                       CHECK (status IN ('pending', 'processing', 'requires_action', 'succeeded', 'failed', 'canceled')),
    failure_code       text,
    failure_reason     text,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    settled_at         timestamptz,
    -- When the outcome of an open payment is looked up next, and how often it was.
    checks             integer NOT NULL DEFAULT 0,
    next_check_at      timestamptz,
    -- The provider spoke of refunds that are not written down: they are looked up once the payment is settled.
    refunds_unread     boolean NOT NULL DEFAULT false,
    UNIQUE (invoice_id, attempt),
    UNIQUE (provider, provider_reference),
    CHECK ((status = 'succeeded') = (settled_at IS NOT NULL))
);
CREATE INDEX payments_to_check ON payments (next_check_at) WHERE next_check_at IS NOT NULL;
-- At most one live or successful payment per invoice: a second charge cannot even be written down. What came by bank is
-- no charge: it has come, in as many parts as the payer chose.
CREATE UNIQUE INDEX one_live_payment_per_invoice ON payments (invoice_id)
    WHERE status IN ('pending', 'processing', 'requires_action', 'succeeded') AND provider <> 'wire';

CREATE TABLE refunds (
    refund_id          text PRIMARY KEY,
    payment_id         text NOT NULL REFERENCES payments,
    invoice_id         text NOT NULL REFERENCES invoices,
    tenant_id          text NOT NULL REFERENCES tenants,
    provider           text NOT NULL,
    provider_reference text,
    amount             numeric NOT NULL CHECK (amount > 0),
    currency           text NOT NULL,
    reason             text NOT NULL,
    requested_by       text NOT NULL,
    status             text NOT NULL
                       CHECK (status IN ('pending', 'processing', 'succeeded', 'failed', 'canceled')),
    failure_code       text,
    failure_reason     text,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    settled_at         timestamptz,
    checks             integer NOT NULL DEFAULT 0,
    next_check_at      timestamptz,
    UNIQUE (provider, provider_reference),
    CHECK ((status = 'succeeded') = (settled_at IS NOT NULL))
);
CREATE INDEX refunds_of_payment ON refunds (payment_id);
CREATE INDEX refunds_to_check ON refunds (next_check_at) WHERE next_check_at IS NOT NULL;

-- Credit notes whose paid value goes back through the payments it came from, instead of staying as a credit.
CREATE TABLE credit_note_refunds (
    credit_note_id     text PRIMARY KEY REFERENCES invoices,
    tenant_id          text NOT NULL REFERENCES tenants,
    currency           text NOT NULL,
    amount             numeric NOT NULL CHECK (amount > 0),
    -- What became a credit after all, because it could not be refunded.
    credited           numeric NOT NULL DEFAULT 0 CHECK (credited BETWEEN 0 AND amount),
    requested_by       text NOT NULL,
    created_at         timestamptz NOT NULL
);
CREATE INDEX credit_note_refunds_by_tenant ON credit_note_refunds (tenant_id);

-- The refunds that give it back, failed ones too.
CREATE TABLE credit_note_refund_parts (
    refund_id          text PRIMARY KEY REFERENCES refunds,
    credit_note_id     text NOT NULL REFERENCES credit_note_refunds
);
CREATE INDEX credit_note_refund_parts_of_note ON credit_note_refund_parts (credit_note_id);

-- What was said of bank entries over HTTP, by the request's key: the same key gets the same answer and does nothing.
CREATE TABLE bank_requests (
    request_key        text PRIMARY KEY,
    asked_sha256       text NOT NULL,
    answer             jsonb,
    asked_at           timestamptz NOT NULL
);

-- The sum of refunds never exceeds what was settled, whoever writes: the payment's row is locked while it is counted.
CREATE FUNCTION guard_refunds() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    settled numeric;
    refunded numeric;
BEGIN
    SELECT amount INTO settled FROM payments
    WHERE payment_id = NEW.payment_id AND status = 'succeeded' AND currency = NEW.currency FOR UPDATE;
    SELECT coalesce(sum(amount), 0) INTO refunded FROM refunds
    WHERE payment_id = NEW.payment_id AND refund_id <> NEW.refund_id AND status NOT IN ('failed', 'canceled');
    IF settled IS NULL OR refunded + NEW.amount > settled THEN
        RAISE EXCEPTION 'refund % of % would exceed what payment % settled', NEW.refund_id, NEW.amount, NEW.payment_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_within_payment';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refunds_within_payment BEFORE INSERT OR UPDATE ON refunds
    FOR EACH ROW WHEN (NEW.status NOT IN ('failed', 'canceled')) EXECUTE FUNCTION guard_refunds();

CREATE TABLE disputes (
    dispute_id         text PRIMARY KEY,
    payment_id         text NOT NULL REFERENCES payments,
    invoice_id         text NOT NULL REFERENCES invoices,
    tenant_id          text NOT NULL REFERENCES tenants,
    provider           text NOT NULL,
    provider_reference text NOT NULL,
    amount             numeric NOT NULL CHECK (amount > 0),
    currency           text NOT NULL,
    reason             text NOT NULL,
    status             text NOT NULL CHECK (status IN ('inquiry', 'opened', 'won', 'lost', 'closed')),
    opened_at          timestamptz NOT NULL,
    -- The last instant at which the provider takes evidence.
    evidence_due_at    timestamptz,
    closed_at          timestamptz,
    updated_at         timestamptz NOT NULL,
    UNIQUE (provider, provider_reference),
    CHECK ((status IN ('won', 'lost', 'closed')) = (closed_at IS NOT NULL))
);
CREATE INDEX disputes_of_payment ON disputes (payment_id);
CREATE INDEX disputes_open ON disputes (evidence_due_at) WHERE status IN ('inquiry', 'opened');

-- One row per change of state of a payment, refund or dispute, written with it; only ever added.
CREATE TABLE payment_changes (
    change_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject            text NOT NULL CHECK (subject IN ('payment', 'refund', 'dispute')),
    subject_id         text NOT NULL,
    payment_id         text NOT NULL REFERENCES payments,
    tenant_id          text NOT NULL REFERENCES tenants,
    status_before      text,
    status_after       text NOT NULL,
    cause              text NOT NULL CHECK (cause IN ('request', 'answer', 'webhook', 'lookup', 'clock')),
    -- The event, request or person behind it.
    cause_reference    text,
    code               text,
    reason             text,
    changed_at         timestamptz NOT NULL
);
CREATE INDEX payment_changes_of_payment ON payment_changes (payment_id, change_id);
CREATE TRIGGER payment_changes_only_grow BEFORE UPDATE OR DELETE ON payment_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_rewriting();

-- Where the payer must go (3-D Secure, approval), until when, and whether the payer was told.
CREATE TABLE payer_actions (
    payment_id         text PRIMARY KEY REFERENCES payments,
    url                text NOT NULL,
    expires_at         timestamptz NOT NULL,
    created_at         timestamptz NOT NULL,
    told_at            timestamptz,
    -- Told once more, when half of the time is over.
    reminded_at        timestamptz
);

-- Up to when the events of a provider are known to be in the inbox.
CREATE TABLE provider_sweeps (
    provider           text PRIMARY KEY,
    swept_until        timestamptz NOT NULL
);

-- Approved PayPal orders whose money was asked for: written before the call, so that nobody asks at the same time.
CREATE TABLE paypal_captures (
    payment_id         text PRIMARY KEY REFERENCES payments,
    asked              integer NOT NULL CHECK (asked > 0),
    next_ask_at        timestamptz NOT NULL,
    -- PayPal's id of the capture; once it is known, nobody asks again.
    capture_id         text UNIQUE,
    captured_at        timestamptz,
    CHECK ((capture_id IS NULL) = (captured_at IS NULL))
);

-- How a tenant pays: the provider's references only, never card data.
CREATE TABLE payment_methods (
    tenant_id          text NOT NULL REFERENCES tenants,
    provider           text NOT NULL,
    customer_reference text,
    method_reference   text NOT NULL,
    created_at         timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, provider)
);

CREATE TABLE webhook_inbox (
    provider           text NOT NULL,
    event_id           text NOT NULL,
    event_type         text NOT NULL,
    body               bytea NOT NULL,
    received_at        timestamptz NOT NULL,
    processed_at       timestamptz,
    -- Why the event could not be applied; it is kept and acknowledged so that poison never blocks.
    refusal            text,
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX webhook_inbox_open ON webhook_inbox (received_at) WHERE processed_at IS NULL;

-- Written in the transaction of the change it announces; the relay publishes rows in order and marks them.
CREATE TABLE outbox (
    outbox_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id           text NOT NULL UNIQUE,
    topic              text NOT NULL,
    key                text NOT NULL,
    payload            bytea NOT NULL,
    created_at         timestamptz NOT NULL,
    published_at       timestamptz
);
CREATE INDEX outbox_open ON outbox (outbox_id) WHERE published_at IS NULL;

-- One row per alert and channel: claimed before sending, so each alert is sent once per channel.
CREATE TABLE alert_deliveries (
    alert_id           text NOT NULL,
    channel            text NOT NULL,
    kind               text NOT NULL DEFAULT 'quota' CHECK (kind IN ('quota', 'spend', 'anomaly')),
    tenant_id          text NOT NULL,
    payload            jsonb NOT NULL,
    status             text NOT NULL CHECK (status IN ('pending', 'sent', 'refused')),
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz NOT NULL,
    last_error         text,
    created_at         timestamptz NOT NULL,
    sent_at            timestamptz,
    PRIMARY KEY (alert_id, channel),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX alert_deliveries_open ON alert_deliveries (next_attempt_at) WHERE status = 'pending';

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

-- What people did about dead letters; the letters themselves stay on their topics. A letter without a row that is done
-- is open. A replay is written down before its record is sent and done when the broker has it: a crash in between
-- leaves it open, and sending it again is safe, because the identity of the event counts once.
CREATE TABLE dead_letter_actions (
    action_id          uuid PRIMARY KEY,
    topic              text NOT NULL,
    partition          integer NOT NULL CHECK (partition >= 0),
    letter_offset      bigint NOT NULL CHECK (letter_offset >= 0),
    kind               text NOT NULL CHECK (kind IN ('replay', 'discard')),
    code               text NOT NULL,
    letter_at          timestamptz NOT NULL,
    actor              text NOT NULL CHECK (actor <> ''),
    reason             text NOT NULL DEFAULT '',
    -- SHA-256 of the letter's body, and of what was sent: they differ where a person mended it.
    letter_sha256      text NOT NULL,
    sent_sha256        text,
    sent_topic         text,
    sent_partition     integer,
    sent_offset        bigint,
    begun_at           timestamptz NOT NULL,
    done_at            timestamptz,
    CHECK (kind <> 'discard' OR (done_at IS NOT NULL AND reason <> '')),
    CHECK ((kind = 'replay') = (sent_sha256 IS NOT NULL)),
    CHECK ((kind = 'replay' AND done_at IS NOT NULL) = (sent_offset IS NOT NULL))
);
CREATE INDEX dead_letter_actions_by_letter ON dead_letter_actions (topic, partition, letter_offset);

-- How many letters of each code a topic got on each day, and up to which offset they were counted: so that counting
-- a million letters again reads only the new ones.
CREATE TABLE dead_letter_tallies (
    topic              text NOT NULL,
    partition          integer NOT NULL,
    code               text NOT NULL,
    day                date NOT NULL,
    letters            bigint NOT NULL CHECK (letters > 0),
    PRIMARY KEY (topic, partition, code, day)
);
CREATE TABLE dead_letter_tally_progress (
    topic              text NOT NULL,
    partition          integer NOT NULL,
    next_offset        bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

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
    -- What a catalogue gives belongs to a plan version; what is given by hand belongs to the plan and comes before it.
    plan_version       integer,
    CONSTRAINT entitlements_version_check CHECK (plan_version IS NULL OR plan_id IS NOT NULL),
    FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions (plan_id, version),
    CHECK ((plan_id IS NULL) <> (tenant_id IS NULL)),
    CHECK ((period IS NULL) = (value IS NOT NULL)),
    CHECK ((period = 'rolling') = (rolling_hours IS NOT NULL)),
    CHECK (period IS NOT NULL OR (limit_quantity IS NULL AND NOT hard))
);
CREATE UNIQUE INDEX entitlements_by_tenant ON entitlements (tenant_id, feature_id) WHERE tenant_id IS NOT NULL;
CREATE UNIQUE INDEX entitlements_by_plan ON entitlements (plan_id, plan_version, feature_id) NULLS NOT DISTINCT
    WHERE plan_id IS NOT NULL;
CREATE TRIGGER entitlements_of_versions_never_change BEFORE UPDATE OR DELETE ON entitlements
    FOR EACH ROW WHEN (OLD.plan_version IS NOT NULL) EXECUTE FUNCTION refuse_change();

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

-- A coupon as it is offered. A version never changes; archived, it makes room for the next version of the same coupon.
CREATE TABLE coupons (
    coupon_id          text NOT NULL CHECK (coupon_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    version            integer NOT NULL CHECK (version > 0),
    name               text NOT NULL,
    percent_off        numeric CHECK (percent_off > 0 AND percent_off <= 100),
    -- Off each billing period, in the currency that the minimum amount is in too.
    amount_off         numeric CHECK (amount_off > 0),
    currency           text CHECK (currency ~ '^[A-Z]{3}$'),
    duration           text NOT NULL CHECK (duration IN ('once', 'repeating', 'forever')),
    periods            integer CHECK (periods BETWEEN 1 AND 120),
    -- When it can be redeemed; an automatic one counts for subscriptions from then on.
    valid_from         timestamptz NOT NULL,
    valid_until        timestamptz,
    max_redemptions    integer CHECK (max_redemptions > 0),
    max_per_tenant     integer CHECK (max_per_tenant > 0),
    automatic          boolean NOT NULL,
    -- What it is limited to; empty: nothing.
    plans              text[] NOT NULL DEFAULT '{}',
    meters             text[] NOT NULL DEFAULT '{}',
    charges            text[] NOT NULL DEFAULT '{}',
    minimum_amount     numeric CHECK (minimum_amount > 0),
    priority           integer NOT NULL CHECK (priority BETWEEN 0 AND 255),
    exclusive          boolean NOT NULL,
    created_at         timestamptz NOT NULL,
    archived_at        timestamptz,
    -- Counted by the redemptions' trigger, so that the limit holds whoever writes them.
    redeemed           integer NOT NULL DEFAULT 0 CHECK (redeemed >= 0),
    PRIMARY KEY (coupon_id, version),
    CHECK ((percent_off IS NULL) <> (amount_off IS NULL)),
    CHECK ((currency IS NULL) = (amount_off IS NULL AND minimum_amount IS NULL)),
    CHECK ((duration = 'repeating') = (periods IS NOT NULL)),
    CHECK (valid_from < valid_until),
    CHECK (redeemed <= max_redemptions),
    CHECK (NOT automatic OR (max_redemptions IS NULL AND max_per_tenant IS NULL AND redeemed = 0))
);
CREATE UNIQUE INDEX one_open_version_per_coupon ON coupons (coupon_id) WHERE archived_at IS NULL;
CREATE INDEX coupons_automatic ON coupons (coupon_id, version) WHERE automatic;

CREATE TABLE coupon_redemptions (
    redemption_id      text PRIMARY KEY,
    coupon_id          text NOT NULL,
    coupon_version     integer NOT NULL,
    tenant_id          text NOT NULL REFERENCES tenants,
    subscription_id    text NOT NULL REFERENCES subscriptions,
    redeemed_at        timestamptz NOT NULL,
    -- The first billing period it covers is the one that holds this instant.
    starts_at          timestamptz NOT NULL CHECK (starts_at >= redeemed_at),
    -- The billing period that holds this instant is not covered any more.
    removed_at         timestamptz CHECK (removed_at >= redeemed_at),
    FOREIGN KEY (coupon_id, coupon_version) REFERENCES coupons (coupon_id, version)
);
CREATE INDEX coupon_redemptions_by_subscription ON coupon_redemptions (subscription_id);
CREATE INDEX coupon_redemptions_by_tenant ON coupon_redemptions (coupon_id, coupon_version, tenant_id);

-- A credit as it was granted. What is left of it is in credit_balances, how it came to that in credit_entries.
CREATE TABLE credit_grants (
    grant_id           text PRIMARY KEY,
    tenant_id          text NOT NULL REFERENCES tenants,
    kind               text NOT NULL CHECK (kind IN ('paid', 'promotional')),
    amount             numeric NOT NULL CHECK (amount > 0),
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    priority           integer NOT NULL CHECK (priority BETWEEN 0 AND 255),
    effective_at       timestamptz NOT NULL,
    expires_at         timestamptz CHECK (expires_at > effective_at),
    -- What it is limited to; empty: nothing.
    plans              text[] NOT NULL DEFAULT '{}',
    meters             text[] NOT NULL DEFAULT '{}',
    reason             text NOT NULL DEFAULT '',
    granted_at         timestamptz NOT NULL
);
CREATE INDEX credit_grants_by_tenant ON credit_grants (tenant_id, grant_id);
CREATE INDEX credit_grants_by_expiry ON credit_grants (expires_at) WHERE expires_at IS NOT NULL;

-- The sum of each grant's entries, kept by their trigger: nobody else may write here, and nothing lets it go below zero.
CREATE TABLE credit_balances (
    grant_id           text PRIMARY KEY REFERENCES credit_grants,
    entries            integer NOT NULL CHECK (entries > 0),
    balance            numeric NOT NULL CONSTRAINT credits_never_overdrawn CHECK (balance >= 0),
    -- A voided grant is drawn no more, even if an invoice gives something back to it.
    voided_at          timestamptz,
    changed_at         timestamptz NOT NULL
);

-- Append-only. Every entry moves its amount from the credited to the debited account; customer_credits is the liability.
CREATE TABLE credit_entries (
    entry_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grant_id           text NOT NULL REFERENCES credit_grants,
    -- Set by the trigger: which entry of the grant it is, and the balance up to it.
    number             integer NOT NULL CHECK (number > 0),
    kind               text NOT NULL CHECK (kind IN ('granted', 'drawn', 'returned', 'expired', 'voided', 'refunded')),
    amount             numeric NOT NULL,
    balance_after      numeric NOT NULL CHECK (balance_after >= 0),
    debit_account      text NOT NULL
                       CHECK (debit_account IN ('customer_credits', 'cash', 'promotions', 'revenue', 'breakage')),
    credit_account     text NOT NULL
                       CHECK (credit_account IN ('customer_credits', 'cash', 'promotions', 'revenue', 'breakage')),
    -- The cause: the invoice that drew or gave back, the refund's key.
    reference          text NOT NULL DEFAULT '',
    reason             text NOT NULL DEFAULT '',
    -- Never before the grant's entry before it, whatever the writers' clocks say.
    recorded_at        timestamptz NOT NULL,
    UNIQUE (grant_id, number),
    CHECK ((kind = 'granted') = (number = 1)),
    CHECK (kind NOT IN ('drawn', 'returned', 'refunded') OR reference <> ''),
    CHECK (CASE WHEN kind IN ('granted', 'returned')
                THEN amount > 0 AND credit_account = 'customer_credits' AND debit_account <> 'customer_credits'
                ELSE (amount < 0 OR (kind = 'voided' AND amount = 0))
                     AND debit_account = 'customer_credits' AND credit_account <> 'customer_credits' END)
);
-- The same cause moves a grant once: an invoice draws once and gives back once, a refund is paid once.
CREATE UNIQUE INDEX credit_entries_by_cause ON credit_entries (reference, grant_id, kind)
    WHERE kind IN ('drawn', 'returned', 'refunded');

CREATE VIEW credit_postings AS
    SELECT entry_id, grant_id, recorded_at, debit_account AS account, abs(amount) AS debit, 0::numeric AS credit
    FROM credit_entries
    UNION ALL
    SELECT entry_id, grant_id, recorded_at, credit_account, 0, abs(amount) FROM credit_entries;

CREATE FUNCTION guard_credits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'credits are only ever added to, by entries: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE FUNCTION book_credit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind = 'granted' THEN
        INSERT INTO credit_balances (grant_id, entries, balance, changed_at)
        VALUES (NEW.grant_id, 1, NEW.amount, NEW.recorded_at);
        NEW.number := 1;
        NEW.balance_after := NEW.amount;
        RETURN NEW;
    END IF;
    UPDATE credit_balances
    SET entries = entries + 1,
        balance = balance + NEW.amount,
        voided_at = CASE WHEN NEW.kind = 'voided' THEN coalesce(voided_at, NEW.recorded_at) ELSE voided_at END,
        changed_at = greatest(changed_at, NEW.recorded_at)
    WHERE grant_id = NEW.grant_id
    RETURNING entries, balance, changed_at INTO NEW.number, NEW.balance_after, NEW.recorded_at;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'credit % was never granted', NEW.grant_id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER credit_entries_booked BEFORE INSERT ON credit_entries
    FOR EACH ROW EXECUTE FUNCTION book_credit_entry();
CREATE TRIGGER credit_entries_never_change BEFORE UPDATE OR DELETE ON credit_entries
    FOR EACH ROW EXECUTE FUNCTION guard_credits();
CREATE TRIGGER credit_entries_never_emptied BEFORE TRUNCATE ON credit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION guard_credits();
CREATE TRIGGER credit_grants_never_change BEFORE UPDATE OR DELETE ON credit_grants
    FOR EACH ROW EXECUTE FUNCTION guard_credits();
CREATE TRIGGER credit_balances_follow_entries BEFORE INSERT OR UPDATE OR DELETE ON credit_balances
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION guard_credits();

CREATE FUNCTION guard_coupon() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.archived_at IS DISTINCT FROM NEW.archived_at AND OLD.archived_at IS NOT NULL
       OR NEW.redeemed <> OLD.redeemed AND pg_trigger_depth() = 1
       OR to_jsonb(NEW) - '{archived_at,redeemed}'::text[] <> to_jsonb(OLD) - '{archived_at,redeemed}'::text[] THEN
        RAISE EXCEPTION 'coupon % v% never changes: archive it and make the next version', OLD.coupon_id, OLD.version
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER coupons_guarded BEFORE UPDATE OR DELETE ON coupons
    FOR EACH ROW EXECUTE FUNCTION guard_coupon();

CREATE FUNCTION guard_redemption() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE coupons SET redeemed = redeemed + 1 WHERE coupon_id = NEW.coupon_id AND version = NEW.coupon_version;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' OR OLD.removed_at IS NOT NULL
       OR to_jsonb(NEW) - 'removed_at' <> to_jsonb(OLD) - 'removed_at' THEN
        RAISE EXCEPTION 'redemption % never changes, except that it is removed once', OLD.redemption_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER coupon_redemptions_guarded BEFORE INSERT OR UPDATE OR DELETE ON coupon_redemptions
    FOR EACH ROW EXECUTE FUNCTION guard_redemption();

-- The double-entry ledger (docs/ledger.md). An entry's id is made from its cause, so a cause is posted once. Nothing is
-- ever changed: what was wrong is put right by another entry.
CREATE TABLE ledger_entries (
    entry_id           text PRIMARY KEY,
    sequence           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    kind               text NOT NULL CHECK (kind IN (
        'invoice', 'credit_note', 'void', 'write_off', 'settlement', 'settlement_returned', 'refund', 'refund_failed',
        'dispute_opened', 'dispute_won', 'dispute_lost', 'credit', 'bank_receipt', 'bank_return', 'bank_fee',
        'exchange')),
    -- The cause's own id: an invoice, a payment, a refund, a credit's entry, a line of a bank statement.
    cause              text NOT NULL CHECK (cause <> ''),
    -- When the cause was, and when it was written down here.
    occurred_at        timestamptz NOT NULL,
    recorded_at        timestamptz NOT NULL,
    UNIQUE (kind, cause)
);

CREATE TABLE ledger_postings (
    entry_id           text NOT NULL REFERENCES ledger_entries,
    position           integer NOT NULL CHECK (position > 0),
    account            text NOT NULL CHECK (account ~ '^((tax_payable|cash):[A-Za-z0-9][A-Za-z0-9_.-]{0,31}|receivable|revenue'
        '|customer_credit|promotions|breakage|refunds|bad_debt|disputed|fx_difference|unallocated|bank_fees)$'),
    -- Null: money of which it is not known yet whose it is.
    tenant_id          text REFERENCES tenants,
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    debit              numeric NOT NULL DEFAULT 0,
    credit             numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (entry_id, position),
    UNIQUE NULLS NOT DISTINCT (entry_id, account, tenant_id, currency),
    CONSTRAINT one_side_per_posting CHECK (least(debit, credit) = 0 AND greatest(debit, credit) > 0)
);
CREATE INDEX ledger_postings_by_account ON ledger_postings (tenant_id, account, currency);

CREATE FUNCTION check_ledger_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found record;
BEGIN
    SELECT count(*) AS postings, count(*) FILTER (WHERE net <> 0) AS wrong INTO found
    FROM (SELECT sum(debit) - sum(credit) AS net FROM ledger_postings WHERE entry_id = NEW.entry_id GROUP BY currency)
        AS sums;
    IF found.postings = 0 OR found.wrong > 0 THEN
        RAISE EXCEPTION 'ledger entry % does not balance', NEW.entry_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
-- At the commit, whoever wrote: until then an entry's postings may come one by one.
CREATE CONSTRAINT TRIGGER ledger_entries_balance AFTER INSERT ON ledger_entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_ledger_entry();
CREATE CONSTRAINT TRIGGER ledger_postings_balance AFTER INSERT ON ledger_postings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_ledger_entry();

CREATE FUNCTION guard_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only ever added to, by entries: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER ledger_entries_never_change BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION guard_ledger();
CREATE TRIGGER ledger_entries_never_emptied BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION guard_ledger();
CREATE TRIGGER ledger_postings_never_change BEFORE UPDATE OR DELETE ON ledger_postings
    FOR EACH ROW EXECUTE FUNCTION guard_ledger();
CREATE TRIGGER ledger_postings_never_emptied BEFORE TRUNCATE ON ledger_postings
    FOR EACH STATEMENT EXECUTE FUNCTION guard_ledger();

-- Money that paid an invoice, once per payment; the invoice's amount_paid is their sum.
CREATE TABLE settlements (
    payment_id         text PRIMARY KEY REFERENCES payments,
    invoice_id         text NOT NULL REFERENCES invoices,
    amount             numeric NOT NULL CHECK (amount > 0),
    settled_at         timestamptz NOT NULL,
    recorded_at        timestamptz NOT NULL
);
CREATE INDEX settlements_by_invoice ON settlements (invoice_id);
CREATE TRIGGER settlements_never_change BEFORE UPDATE OR DELETE ON settlements
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What became of settled money afterwards, as payments announced it. The invoice stays paid: a credit note takes it back.
CREATE TABLE settlement_changes (
    kind               text NOT NULL CHECK (kind IN (
        'refund', 'refund_failed', 'dispute_opened', 'dispute_won', 'dispute_lost', 'returned')),
    -- The refund's or the dispute's own id.
    cause              text NOT NULL CHECK (cause <> ''),
    payment_id         text NOT NULL REFERENCES payments,
    invoice_id         text NOT NULL REFERENCES invoices,
    amount             numeric NOT NULL CHECK (amount > 0),
    -- A bank may dispute in another currency than it paid in.
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    happened_at        timestamptz NOT NULL,
    recorded_at        timestamptz NOT NULL,
    PRIMARY KEY (kind, cause)
);
CREATE INDEX settlement_changes_by_payment ON settlement_changes (payment_id);
CREATE TRIGGER settlement_changes_never_change BEFORE UPDATE OR DELETE ON settlement_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Dunning (docs/dunning.md): invoices whose payment is asked for step by step, and how accounts stand.
CREATE TABLE dunning_accounts (
    tenant_id          text PRIMARY KEY REFERENCES tenants,
    stage              text NOT NULL CHECK (stage IN ('current', 'grace', 'past_due', 'suspended', 'collected')),
    since              timestamptz NOT NULL,
    -- While it is paused, no step is taken.
    paused_at          timestamptz,
    paused_until       timestamptz CHECK (paused_until > paused_at),
    paused_by          text NOT NULL DEFAULT '',
    pause_reason       text NOT NULL DEFAULT '',
    CHECK (paused_at IS NOT NULL OR paused_until IS NULL)
);

-- Every change of how an account stands, and every pause; only ever added.
CREATE TABLE dunning_account_changes (
    change_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id          text NOT NULL REFERENCES tenants,
    kind               text NOT NULL CHECK (kind IN ('stage', 'paused', 'resumed')),
    stage_before       text NOT NULL,
    stage_after        text NOT NULL,
    -- The invoice it was about; of a pause, none.
    invoice_id         text REFERENCES invoices,
    reason             text NOT NULL DEFAULT '',
    changed_by         text NOT NULL DEFAULT 'schedule',
    changed_at         timestamptz NOT NULL
);
CREATE INDEX dunning_account_changes_by_tenant ON dunning_account_changes (tenant_id, change_id);
CREATE TRIGGER dunning_account_changes_only_grow BEFORE UPDATE OR DELETE ON dunning_account_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_rewriting();

-- One row per invoice that dunning has looked at.
CREATE TABLE dunning_cases (
    invoice_id         text PRIMARY KEY REFERENCES invoices,
    tenant_id          text NOT NULL REFERENCES tenants,
    stage              text NOT NULL CHECK (stage IN ('current', 'grace', 'past_due', 'suspended', 'collected')),
    -- Why nothing is done although something would be due.
    waits_for          text NOT NULL DEFAULT '',
    looked_at          timestamptz NOT NULL,
    -- When to look again, whatever happens; null: when something happens.
    look_at            timestamptz,
    is_open            boolean NOT NULL
);
CREATE INDEX dunning_cases_open ON dunning_cases (look_at) WHERE is_open;
CREATE INDEX dunning_cases_by_tenant ON dunning_cases (tenant_id) WHERE is_open;

-- Every step that was taken, once. A retry is written down before the provider is asked and finished afterwards.
CREATE TABLE dunning_steps (
    invoice_id         text NOT NULL REFERENCES dunning_cases,
    name               text NOT NULL,
    kind               text NOT NULL CHECK (kind IN (
        'upcoming', 'payment_failed', 'reminder', 'final_notice', 'retry', 'suspension', 'collection')),
    planned_at         timestamptz NOT NULL,
    done_at            timestamptz NOT NULL,
    -- 'done', of a retry 'started', then the payment's status, or why there was none.
    outcome            text NOT NULL,
    amount_open        numeric NOT NULL,
    -- Of a retry: the failed payment, who works on it until when, and the payment that came of it.
    retry_of           text REFERENCES payments,
    held_until         timestamptz,
    payment_id         text REFERENCES payments,
    PRIMARY KEY (invoice_id, name),
    CHECK (outcome <> 'started' OR (kind = 'retry' AND held_until IS NOT NULL))
);
CREATE INDEX dunning_steps_started ON dunning_steps (held_until) WHERE outcome = 'started';

-- Mails of steps, written with the step and sent afterwards: tried until the server has them.
CREATE TABLE dunning_mails (
    message_id         text PRIMARY KEY,
    invoice_id         text NOT NULL,
    step               text NOT NULL,
    tenant_id          text NOT NULL REFERENCES tenants,
    -- All that the mail says, as it was when the step was taken.
    payload            jsonb NOT NULL,
    status             text NOT NULL CHECK (status IN ('pending', 'sent', 'refused', 'dropped')),
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz NOT NULL,
    last_error         text,
    created_at         timestamptz NOT NULL,
    sent_at            timestamptz,
    UNIQUE (invoice_id, step),
    FOREIGN KEY (invoice_id, step) REFERENCES dunning_steps (invoice_id, name),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX dunning_mails_open ON dunning_mails (next_attempt_at) WHERE status = 'pending';

-- What banks say of the seller's accounts (docs/wire.md).
CREATE TABLE bank_statements (
    statement_id       text PRIMARY KEY,
    -- The seller's account as our books name it: IBAN, or routing and number, and its currency.
    account_id         text NOT NULL,
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    format             text NOT NULL CHECK (format IN ('csv', 'camt053', 'mt940')),
    -- The bank's own name of it; '' where it has none. Numbered statements of one format never show an entry twice.
    number             text NOT NULL,
    opened_on          date NOT NULL,
    opening            numeric NOT NULL,
    closed_on          date NOT NULL,
    closing            numeric NOT NULL,
    -- Of what it says, not of how the file wrote it.
    content_digest     text NOT NULL,
    file_name          text NOT NULL,
    file_sha256        text NOT NULL,
    imported_at        timestamptz NOT NULL,
    imported_by        text NOT NULL,
    CHECK (opened_on <= closed_on)
);
CREATE INDEX bank_statements_by_account ON bank_statements (account_id, closed_on);
CREATE TRIGGER bank_statements_never_change BEFORE UPDATE OR DELETE ON bank_statements
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A movement on an account, once, however many statements show it. Money that came in is positive.
CREATE TABLE bank_entries (
    entry_id           text PRIMARY KEY,
    account_id         text NOT NULL,
    -- What the entry says of itself; twins share it and are told apart by the id.
    content_key        text NOT NULL,
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    booked_on          date NOT NULL,
    valued_on          date NOT NULL,
    amount             numeric NOT NULL CHECK (amount <> 0),
    is_reversal        boolean NOT NULL,
    bank_reference     text NOT NULL,
    remittance         text NOT NULL,
    reference_texts    text[] NOT NULL,
    counterparty       text NOT NULL,
    counterparty_account text NOT NULL,
    imported_at        timestamptz NOT NULL,
    -- Money that went out is only noted, unless it takes back what came in.
    status             text NOT NULL CHECK (status IN ('open', 'done', 'rejected', 'noted')),
    -- The sum of its allocations, kept by their trigger.
    allocated          numeric NOT NULL DEFAULT 0,
    decided_by         text NOT NULL DEFAULT '',
    decided_at         timestamptz,
    note               text NOT NULL DEFAULT '',
    CONSTRAINT bank_entries_within_amount CHECK (allocated >= 0 AND allocated <= abs(amount)),
    CHECK (status <> 'done' OR allocated = abs(amount)),
    CHECK (status <> 'rejected' OR allocated = 0)
);
CREATE INDEX bank_entries_by_content ON bank_entries (content_key);
CREATE INDEX bank_entries_by_account ON bank_entries (account_id, booked_on);
CREATE INDEX bank_entries_open ON bank_entries (booked_on, entry_id) WHERE status = 'open';

CREATE TABLE bank_statement_entries (
    statement_id       text NOT NULL REFERENCES bank_statements,
    position           integer NOT NULL CHECK (position > 0),
    entry_id           text NOT NULL REFERENCES bank_entries,
    PRIMARY KEY (statement_id, position),
    UNIQUE (statement_id, entry_id)
);
CREATE INDEX bank_statement_entries_by_entry ON bank_statement_entries (entry_id);

-- What a person said an entry is for. Only ever added: what is taken back is an allocation of the entry that took it.
CREATE TABLE bank_allocations (
    allocation_id      text PRIMARY KEY,
    sequence           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    entry_id           text NOT NULL REFERENCES bank_entries,
    kind               text NOT NULL CHECK (kind IN ('invoice', 'credit', 'held', 'return')),
    tenant_id          text REFERENCES tenants,
    amount             numeric NOT NULL CHECK (amount > 0),
    -- What bank fees took on the way and is borne by us: the payment is that much higher than the money.
    fee                numeric NOT NULL DEFAULT 0 CHECK (fee >= 0 AND (fee = 0 OR kind IN ('invoice', 'return'))),
    payment_id         text UNIQUE REFERENCES payments,
    grant_id           text UNIQUE REFERENCES credit_grants,
    -- The allocation that this one takes back, wholly or in part.
    returned_id        text REFERENCES bank_allocations,
    -- Why, as the proposal said it: [{"code", "text", "points"}].
    reasons            jsonb NOT NULL DEFAULT '[]',
    confirmed_by       text NOT NULL,
    confirmed_at       timestamptz NOT NULL,
    CHECK ((kind = 'invoice') = (payment_id IS NOT NULL)),
    CHECK ((kind = 'credit') = (grant_id IS NOT NULL)),
    CHECK ((kind = 'return') = (returned_id IS NOT NULL)),
    CHECK (kind = 'held' OR tenant_id IS NOT NULL OR kind = 'return')
);
CREATE INDEX bank_allocations_by_entry ON bank_allocations (entry_id);
CREATE INDEX bank_allocations_by_returned ON bank_allocations (returned_id) WHERE returned_id IS NOT NULL;
CREATE TRIGGER bank_allocations_never_change BEFORE UPDATE OR DELETE ON bank_allocations
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Whoever writes: an entry is never given out beyond its amount, nor an allocation taken back beyond its own.
CREATE FUNCTION book_bank_allocation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    given numeric;
    returned numeric;
BEGIN
    UPDATE bank_entries SET allocated = allocated + NEW.amount WHERE entry_id = NEW.entry_id;
    IF NEW.returned_id IS NOT NULL THEN
        SELECT amount INTO given FROM bank_allocations
        WHERE allocation_id = NEW.returned_id AND kind <> 'return' FOR UPDATE;
        SELECT coalesce(sum(amount), 0) INTO returned FROM bank_allocations WHERE returned_id = NEW.returned_id;
        IF given IS NULL OR returned + NEW.amount > given THEN
            RAISE EXCEPTION 'allocation % cannot be taken back by %', NEW.returned_id, NEW.amount
                USING ERRCODE = 'check_violation', CONSTRAINT = 'bank_returns_within_allocation';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER bank_allocations_booked BEFORE INSERT ON bank_allocations
    FOR EACH ROW EXECUTE FUNCTION book_bank_allocation();

CREATE FUNCTION guard_bank_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    free CONSTANT text[] := '{status,allocated,decided_by,decided_at,note}';
BEGIN
    IF TG_OP = 'DELETE' OR to_jsonb(NEW) - free <> to_jsonb(OLD) - free
       OR NEW.allocated <> OLD.allocated AND pg_trigger_depth() = 1 THEN
        RAISE EXCEPTION 'bank entry % never changes but for what is decided about it', OLD.entry_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER bank_entries_guarded BEFORE UPDATE OR DELETE ON bank_entries
    FOR EACH ROW EXECUTE FUNCTION guard_bank_entry();
