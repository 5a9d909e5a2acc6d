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
