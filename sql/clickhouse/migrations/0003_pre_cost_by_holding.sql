-- Two plans held in one period, or two subscriptions with one plan, must not replace each other's rows.
ALTER TABLE rated_usage ADD COLUMN holding String,
    MODIFY ORDER BY (period, tenant, state, reference, charge, meter, holding);
