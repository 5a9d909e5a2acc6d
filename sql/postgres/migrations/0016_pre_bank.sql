-- Wire payments: what banks say, and which invoices a person says it paid (docs/wire.md).

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

-- A transfer that was taken back opens its invoice again, unlike a refund; what banks take on the way is an expense.
ALTER TABLE settlement_changes DROP CONSTRAINT settlement_changes_kind_check;
ALTER TABLE settlement_changes ADD CONSTRAINT settlement_changes_kind_check CHECK (kind IN (
    'refund', 'refund_failed', 'dispute_opened', 'dispute_won', 'dispute_lost', 'returned'));
ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_kind_check;
ALTER TABLE ledger_entries ADD CONSTRAINT ledger_entries_kind_check CHECK (kind IN (
    'invoice', 'credit_note', 'void', 'write_off', 'settlement', 'settlement_returned', 'refund', 'refund_failed',
    'dispute_opened', 'dispute_won', 'dispute_lost', 'credit', 'bank_receipt', 'bank_return', 'bank_fee', 'exchange'));
ALTER TABLE ledger_postings DROP CONSTRAINT ledger_postings_account_check;
ALTER TABLE ledger_postings ADD CONSTRAINT ledger_postings_account_check CHECK (
    account ~ '^((tax_payable|cash):[A-Za-z0-9][A-Za-z0-9_.-]{0,31}|receivable|revenue'
        '|customer_credit|promotions|breakage|refunds|bad_debt|disputed|fx_difference|unallocated|bank_fees)$');
