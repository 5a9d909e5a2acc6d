-- The life of an invoice: drafts with a grace, credit notes, void, written off, reissued, one-time, several subscriptions on one.

ALTER TABLE invoices ADD COLUMN kind text NOT NULL DEFAULT 'invoice' CHECK (kind IN ('invoice', 'credit_note'));
-- What it came from: a billing period, items put down by a person, less owed than billed, given back by a person, the
-- taking back of an invoice that is issued anew.
ALTER TABLE invoices ADD COLUMN origin text NOT NULL DEFAULT 'period'
    CHECK (origin IN ('period', 'one_time', 'correction', 'manual', 'reissue'));
-- Why: of a credit note, a void, a write-off. For people.
ALTER TABLE invoices ADD COLUMN reason text NOT NULL DEFAULT '';
-- What a document by a person's hand said, as a digest: the same key with something else is refused.
ALTER TABLE invoices ADD COLUMN asked_sha256 text;
-- The invoice that this one is issued anew for.
ALTER TABLE invoices ADD COLUMN replaces text REFERENCES invoices;
-- What credit notes took off what was open; what they gave back beyond is in credit_note_applications.
ALTER TABLE invoices ADD COLUMN amount_credited numeric NOT NULL DEFAULT 0;
ALTER TABLE invoices ALTER COLUMN amount_due SET EXPRESSION AS (
    CASE kind WHEN 'credit_note' THEN 0 ELSE total - credits_applied - amount_credited END);
-- Of a draft: when its grace is over.
ALTER TABLE invoices ADD COLUMN finalize_at timestamptz;
-- When it was voided or written off.
ALTER TABLE invoices ADD COLUMN closed_at timestamptz;
-- One-time items need no subscription.
ALTER TABLE invoices ALTER COLUMN subscription_id DROP NOT NULL;
ALTER TABLE invoices ADD CONSTRAINT invoices_subscription_check CHECK (
    subscription_id IS NOT NULL OR origin IN ('one_time', 'correction', 'manual', 'reissue'));
ALTER TABLE invoices DROP CONSTRAINT invoices_check2;
ALTER TABLE invoices ADD CONSTRAINT invoices_amounts_check CHECK (
    CASE kind WHEN 'credit_note' THEN total <= 0 AND amount_paid = 0 AND amount_credited = 0
              ELSE total >= 0 AND amount_paid >= 0 AND amount_credited >= 0 END);
ALTER TABLE invoices DROP CONSTRAINT invoices_credits_check;
ALTER TABLE invoices ADD CONSTRAINT invoices_credits_check CHECK (
    credits_applied >= 0 AND credits_applied <= greatest(total, 0)
    AND amount_paid <= greatest(total, 0) - credits_applied - amount_credited);
ALTER TABLE invoices ADD CONSTRAINT invoices_draft_check CHECK ((status = 'draft') = (finalize_at IS NOT NULL));
CREATE INDEX invoices_by_grace ON invoices (finalize_at) WHERE status = 'draft';

-- Given back by hand: the item stays billed, so it is not billed again.
ALTER TABLE invoice_lines ADD COLUMN adjusts boolean NOT NULL DEFAULT false;
-- Null: the invoice's own.
ALTER TABLE invoice_lines ADD COLUMN subscription_id text REFERENCES subscriptions;
ALTER TABLE invoice_lines DROP CONSTRAINT invoice_lines_invoice_id_item_key_key;
ALTER TABLE invoice_lines ADD CONSTRAINT invoice_lines_item_once
    UNIQUE NULLS NOT DISTINCT (invoice_id, item_key, corrects_invoice);
CREATE INDEX invoice_lines_by_corrected ON invoice_lines (corrects_invoice) WHERE corrects_invoice IS NOT NULL;
CREATE INDEX invoice_lines_by_subscription ON invoice_lines (subscription_id) WHERE subscription_id IS NOT NULL;

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

-- One document for all of a tenant's subscriptions whose billing period and currency are the same.
ALTER TABLE tenants ADD COLUMN consolidated_invoices boolean NOT NULL DEFAULT false;
