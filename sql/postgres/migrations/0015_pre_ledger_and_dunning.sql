-- The ledger behind every movement of money, settlements in parts, and dunning.

-- The double-entry ledger (docs/ledger.md). An entry's id is made from its cause, so a cause is posted once. Nothing is
-- ever changed: what was wrong is put right by another entry.
CREATE TABLE ledger_entries (
    entry_id           text PRIMARY KEY,
    sequence           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    kind               text NOT NULL CHECK (kind IN (
        'invoice', 'credit_note', 'void', 'write_off', 'settlement', 'refund', 'refund_failed', 'dispute_opened',
        'dispute_won', 'dispute_lost', 'credit', 'bank_receipt', 'bank_return', 'bank_fee', 'exchange')),
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
        'refund', 'refund_failed', 'dispute_opened', 'dispute_won', 'dispute_lost')),
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

-- At most one live or successful payment per invoice; what came by bank is no charge.
DROP INDEX one_live_payment_per_invoice;
CREATE UNIQUE INDEX one_live_payment_per_invoice ON payments (invoice_id)
    WHERE status IN ('pending', 'processing', 'requires_action', 'succeeded') AND provider <> 'wire';

-- Invoices that were paid before settlements were written down: each by one payment, in full.
INSERT INTO settlements (payment_id, invoice_id, amount, settled_at, recorded_at)
SELECT payment_id, invoice_id, amount, settled_at, updated_at FROM payments JOIN invoices USING (invoice_id)
WHERE payments.status = 'succeeded' AND invoices.status = 'paid' AND invoices.amount_paid = payments.amount;

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
