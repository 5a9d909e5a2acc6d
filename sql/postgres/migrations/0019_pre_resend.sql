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
