-- Refunds, disputes, 3-D Secure, look-ups of unknown outcomes, the sweep of provider events, and the history of it all.
ALTER TABLE payments ADD COLUMN checks integer NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN next_check_at timestamptz;
-- The provider spoke of refunds that are not written down: they are looked up once the payment is settled.
ALTER TABLE payments ADD COLUMN refunds_unread boolean NOT NULL DEFAULT false;
UPDATE payments SET next_check_at = created_at WHERE status IN ('pending', 'processing', 'requires_action');
CREATE INDEX payments_to_check ON payments (next_check_at) WHERE next_check_at IS NOT NULL;

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
    told_at            timestamptz
);

-- Up to when the events of a provider are known to be in the inbox.
CREATE TABLE provider_sweeps (
    provider           text PRIMARY KEY,
    swept_until        timestamptz NOT NULL
);
