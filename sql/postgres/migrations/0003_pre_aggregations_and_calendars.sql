-- All aggregations, filters and lateness of meters; each tenant's own calendar.
ALTER TABLE meters DROP CONSTRAINT meters_aggregation_check;
ALTER TABLE meters DROP CONSTRAINT meters_check;
ALTER TABLE meters ADD CONSTRAINT meters_aggregation_check CHECK (aggregation IN (
    'sum', 'count', 'average', 'unique', 'max', 'min', 'latest', 'time_weighted'));
ALTER TABLE meters ADD CONSTRAINT meters_check CHECK ((aggregation = 'count') = (value_property IS NULL));
ALTER TABLE meters ADD COLUMN filters jsonb NOT NULL DEFAULT '[]';
ALTER TABLE meters ADD COLUMN weight_per text CHECK (weight_per IN ('second', 'hour', 'month'));
ALTER TABLE meters ADD COLUMN allowed_lateness_seconds integer NOT NULL DEFAULT 3600
    CHECK (allowed_lateness_seconds >= 0);
ALTER TABLE meters ADD CONSTRAINT meters_weight_check CHECK ((aggregation = 'time_weighted') = (weight_per IS NOT NULL));
ALTER TABLE tenants ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC';
ALTER TABLE tenants ADD COLUMN billing_anchor_day integer NOT NULL DEFAULT 1
    CHECK (billing_anchor_day BETWEEN 1 AND 31);
