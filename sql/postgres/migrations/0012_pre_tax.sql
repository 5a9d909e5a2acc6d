-- Tax: what decides it of a tenant, what was decided of each line, and what it came to by category, rate and place.

ALTER TABLE tenants ADD COLUMN state text NOT NULL DEFAULT '' CHECK (state ~ '^([A-Z0-9]{1,3})?$');
ALTER TABLE tenants ADD COLUMN postal_code text NOT NULL DEFAULT '' CHECK (length(postal_code) <= 12);
ALTER TABLE tenants ADD COLUMN is_business boolean NOT NULL DEFAULT true;
ALTER TABLE tenants ADD COLUMN vat_number text NOT NULL DEFAULT '' CHECK (vat_number ~ '^([A-Z0-9]{2,20})?$');
-- Why no tax is charged, in a sentence for the invoice, and its VATEX code if it has one.
ALTER TABLE tenants ADD COLUMN tax_exempt text NOT NULL DEFAULT '';
ALTER TABLE tenants ADD COLUMN tax_exempt_code text NOT NULL DEFAULT '';
ALTER TABLE tenants ADD COLUMN language text NOT NULL DEFAULT 'en' CHECK (language ~ '^[a-z]{2}$');
-- What VIES said last of the number. Null: not checked yet.
ALTER TABLE tenants ADD COLUMN vat_valid boolean;
ALTER TABLE tenants ADD COLUMN vat_checked_at timestamptz;
ALTER TABLE tenants ADD CONSTRAINT tenants_vat_check CHECK (
    (vat_valid IS NULL) = (vat_checked_at IS NULL) AND (vat_valid IS NULL OR vat_number <> ''));
ALTER TABLE tenants ADD CONSTRAINT tenants_exempt_check CHECK (tax_exempt <> '' OR tax_exempt_code = '');

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

-- How a line is taxed, as it was decided; lines from before there was tax were not.
ALTER TABLE invoice_lines ADD COLUMN tax_treatment jsonb NOT NULL
    DEFAULT '{"category": "O", "rate": "0", "place": "", "behavior": "exclusive"}';
ALTER TABLE invoice_lines ADD COLUMN tax_amount numeric NOT NULL DEFAULT 0;
-- Of a line that takes something back: the invoice whose tax it lowers. Null: taxed with its own invoice.
ALTER TABLE invoice_lines ADD COLUMN tax_origin text REFERENCES invoices;
ALTER TABLE invoice_lines ADD COLUMN tax_category text GENERATED ALWAYS AS (tax_treatment ->> 'category') STORED;
ALTER TABLE invoice_lines ADD COLUMN tax_rate numeric GENERATED ALWAYS AS ((tax_treatment ->> 'rate')::numeric) STORED;
ALTER TABLE invoice_lines ADD CONSTRAINT invoice_lines_tax_check CHECK (
    tax_category IN ('S', 'Z', 'E', 'AE', 'K', 'G', 'O') AND tax_rate >= 0 AND (tax_category = 'S' OR tax_rate = 0));
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

-- Where the invoice is in another currency than the seller's tax returns: how much of theirs one unit of its is, and the
-- tax in it (VAT Directive, Art. 230).
ALTER TABLE invoices ADD COLUMN exchange_rate numeric CHECK (exchange_rate > 0);
ALTER TABLE invoices ADD COLUMN exchange_currency text;
ALTER TABLE invoices ADD COLUMN exchange_date date;
ALTER TABLE invoices ADD COLUMN exchange_tax numeric;
ALTER TABLE invoices ADD CONSTRAINT invoices_exchange_check CHECK (
    (exchange_rate IS NULL) = (exchange_currency IS NULL) AND (exchange_rate IS NULL) = (exchange_date IS NULL)
    AND (exchange_rate IS NULL) = (exchange_tax IS NULL));
