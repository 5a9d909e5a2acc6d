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
