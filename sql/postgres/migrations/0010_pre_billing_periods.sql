-- Lines that stand on another period's invoice (in advance, corrections), lines that are negative by nature, and credits.
ALTER TABLE invoice_lines DROP CONSTRAINT invoice_lines_kind_check;
ALTER TABLE invoice_lines ADD CONSTRAINT invoice_lines_kind_check CHECK (kind IN (
    'fixed', 'licensed', 'usage', 'minimum', 'maximum', 'true_up', 'discount', 'one_time', 'coupon'));
ALTER TABLE invoice_lines ADD COLUMN period_start timestamptz;
ALTER TABLE invoice_lines ADD COLUMN period_end timestamptz;
ALTER TABLE invoice_lines ADD COLUMN settles timestamptz;
ALTER TABLE invoice_lines ADD CONSTRAINT invoice_lines_period_check CHECK (
    period_start < period_end AND (period_start IS NULL) = (period_end IS NULL) AND (period_start IS NULL) = (settles IS NULL));

ALTER TABLE invoices ADD COLUMN credits_applied numeric NOT NULL DEFAULT 0;
ALTER TABLE invoices ADD COLUMN amount_due numeric GENERATED ALWAYS AS (total - credits_applied) STORED;
ALTER TABLE invoices ADD CONSTRAINT invoices_credits_check CHECK (
    credits_applied >= 0 AND credits_applied <= total AND amount_paid <= total - credits_applied);
