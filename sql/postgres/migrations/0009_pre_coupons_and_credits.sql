-- Coupons with their redemptions, and the ledger of credits.

-- A coupon as it is offered. A version never changes; archived, it makes room for the next version of the same coupon.
CREATE TABLE coupons (
    coupon_id          text NOT NULL CHECK (coupon_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    version            integer NOT NULL CHECK (version > 0),
    name               text NOT NULL,
    percent_off        numeric CHECK (percent_off > 0 AND percent_off <= 100),
    -- Off each billing period, in the currency that the minimum amount is in too.
    amount_off         numeric CHECK (amount_off > 0),
    currency           text CHECK (currency ~ '^[A-Z]{3}$'),
    duration           text NOT NULL CHECK (duration IN ('once', 'repeating', 'forever')),
    periods            integer CHECK (periods BETWEEN 1 AND 120),
    -- When it can be redeemed; an automatic one counts for subscriptions from then on.
    valid_from         timestamptz NOT NULL,
    valid_until        timestamptz,
    max_redemptions    integer CHECK (max_redemptions > 0),
    max_per_tenant     integer CHECK (max_per_tenant > 0),
    automatic          boolean NOT NULL,
    -- What it is limited to; empty: nothing.
    plans              text[] NOT NULL DEFAULT '{}',
    meters             text[] NOT NULL DEFAULT '{}',
    charges            text[] NOT NULL DEFAULT '{}',
    minimum_amount     numeric CHECK (minimum_amount > 0),
    priority           integer NOT NULL CHECK (priority BETWEEN 0 AND 255),
    exclusive          boolean NOT NULL,
    created_at         timestamptz NOT NULL,
    archived_at        timestamptz,
    -- Counted by the redemptions' trigger, so that the limit holds whoever writes them.
    redeemed           integer NOT NULL DEFAULT 0 CHECK (redeemed >= 0),
    PRIMARY KEY (coupon_id, version),
    CHECK ((percent_off IS NULL) <> (amount_off IS NULL)),
    CHECK ((currency IS NULL) = (amount_off IS NULL AND minimum_amount IS NULL)),
    CHECK ((duration = 'repeating') = (periods IS NOT NULL)),
    CHECK (valid_from < valid_until),
    CHECK (redeemed <= max_redemptions),
    CHECK (NOT automatic OR (max_redemptions IS NULL AND max_per_tenant IS NULL AND redeemed = 0))
);
CREATE UNIQUE INDEX one_open_version_per_coupon ON coupons (coupon_id) WHERE archived_at IS NULL;
CREATE INDEX coupons_automatic ON coupons (coupon_id, version) WHERE automatic;

CREATE TABLE coupon_redemptions (
    redemption_id      text PRIMARY KEY,
    coupon_id          text NOT NULL,
    coupon_version     integer NOT NULL,
    tenant_id          text NOT NULL REFERENCES tenants,
    subscription_id    text NOT NULL REFERENCES subscriptions,
    redeemed_at        timestamptz NOT NULL,
    -- The first billing period it covers is the one that holds this instant.
    starts_at          timestamptz NOT NULL CHECK (starts_at >= redeemed_at),
    -- The billing period that holds this instant is not covered any more.
    removed_at         timestamptz CHECK (removed_at >= redeemed_at),
    FOREIGN KEY (coupon_id, coupon_version) REFERENCES coupons (coupon_id, version)
);
CREATE INDEX coupon_redemptions_by_subscription ON coupon_redemptions (subscription_id);
CREATE INDEX coupon_redemptions_by_tenant ON coupon_redemptions (coupon_id, coupon_version, tenant_id);

-- A credit as it was granted. What is left of it is in credit_balances, how it came to that in credit_entries.
CREATE TABLE credit_grants (
    grant_id           text PRIMARY KEY,
    tenant_id          text NOT NULL REFERENCES tenants,
    kind               text NOT NULL CHECK (kind IN ('paid', 'promotional')),
    amount             numeric NOT NULL CHECK (amount > 0),
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    priority           integer NOT NULL CHECK (priority BETWEEN 0 AND 255),
    effective_at       timestamptz NOT NULL,
    expires_at         timestamptz CHECK (expires_at > effective_at),
    -- What it is limited to; empty: nothing.
    plans              text[] NOT NULL DEFAULT '{}',
    meters             text[] NOT NULL DEFAULT '{}',
    reason             text NOT NULL DEFAULT '',
    granted_at         timestamptz NOT NULL
);
CREATE INDEX credit_grants_by_tenant ON credit_grants (tenant_id, grant_id);
CREATE INDEX credit_grants_by_expiry ON credit_grants (expires_at) WHERE expires_at IS NOT NULL;

-- The sum of each grant's entries, kept by their trigger: nobody else may write here, and nothing lets it go below zero.
CREATE TABLE credit_balances (
    grant_id           text PRIMARY KEY REFERENCES credit_grants,
    entries            integer NOT NULL CHECK (entries > 0),
    balance            numeric NOT NULL CONSTRAINT credits_never_overdrawn CHECK (balance >= 0),
    -- A voided grant is drawn no more, even if an invoice gives something back to it.
    voided_at          timestamptz,
    changed_at         timestamptz NOT NULL
);

-- Append-only. Every entry moves its amount from the credited to the debited account; customer_credits is the liability.
CREATE TABLE credit_entries (
    entry_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grant_id           text NOT NULL REFERENCES credit_grants,
    -- Set by the trigger: which entry of the grant it is, and the balance up to it.
    number             integer NOT NULL CHECK (number > 0),
    kind               text NOT NULL CHECK (kind IN ('granted', 'drawn', 'returned', 'expired', 'voided', 'refunded')),
    amount             numeric NOT NULL,
    balance_after      numeric NOT NULL CHECK (balance_after >= 0),
    debit_account      text NOT NULL
                       CHECK (debit_account IN ('customer_credits', 'cash', 'promotions', 'revenue', 'breakage')),
    credit_account     text NOT NULL
                       CHECK (credit_account IN ('customer_credits', 'cash', 'promotions', 'revenue', 'breakage')),
    -- The cause: the invoice that drew or gave back, the refund's key.
    reference          text NOT NULL DEFAULT '',
    reason             text NOT NULL DEFAULT '',
    -- Never before the grant's entry before it, whatever the writers' clocks say.
    recorded_at        timestamptz NOT NULL,
    UNIQUE (grant_id, number),
    CHECK ((kind = 'granted') = (number = 1)),
    CHECK (kind NOT IN ('drawn', 'returned', 'refunded') OR reference <> ''),
    CHECK (CASE WHEN kind IN ('granted', 'returned')
                THEN amount > 0 AND credit_account = 'customer_credits' AND debit_account <> 'customer_credits'
                ELSE (amount < 0 OR (kind = 'voided' AND amount = 0))
                     AND debit_account = 'customer_credits' AND credit_account <> 'customer_credits' END)
);
-- The same cause moves a grant once: an invoice draws once and gives back once, a refund is paid once.
CREATE UNIQUE INDEX credit_entries_by_cause ON credit_entries (reference, grant_id, kind)
    WHERE kind IN ('drawn', 'returned', 'refunded');

CREATE VIEW credit_postings AS
    SELECT entry_id, grant_id, recorded_at, debit_account AS account, abs(amount) AS debit, 0::numeric AS credit
    FROM credit_entries
    UNION ALL
    SELECT entry_id, grant_id, recorded_at, credit_account, 0, abs(amount) FROM credit_entries;

CREATE FUNCTION guard_credits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'credits are only ever added to, by entries: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE FUNCTION book_credit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind = 'granted' THEN
        INSERT INTO credit_balances (grant_id, entries, balance, changed_at)
        VALUES (NEW.grant_id, 1, NEW.amount, NEW.recorded_at);
        NEW.number := 1;
        NEW.balance_after := NEW.amount;
        RETURN NEW;
    END IF;
    UPDATE credit_balances
    SET entries = entries + 1,
        balance = balance + NEW.amount,
        voided_at = CASE WHEN NEW.kind = 'voided' THEN coalesce(voided_at, NEW.recorded_at) ELSE voided_at END,
        changed_at = greatest(changed_at, NEW.recorded_at)
    WHERE grant_id = NEW.grant_id
    RETURNING entries, balance, changed_at INTO NEW.number, NEW.balance_after, NEW.recorded_at;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'credit % was never granted', NEW.grant_id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER credit_entries_booked BEFORE INSERT ON credit_entries
    FOR EACH ROW EXECUTE FUNCTION book_credit_entry();
CREATE TRIGGER credit_entries_never_change BEFORE UPDATE OR DELETE ON credit_entries
    FOR EACH ROW EXECUTE FUNCTION guard_credits();
CREATE TRIGGER credit_entries_never_emptied BEFORE TRUNCATE ON credit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION guard_credits();
CREATE TRIGGER credit_grants_never_change BEFORE UPDATE OR DELETE ON credit_grants
    FOR EACH ROW EXECUTE FUNCTION guard_credits();
CREATE TRIGGER credit_balances_follow_entries BEFORE INSERT OR UPDATE OR DELETE ON credit_balances
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION guard_credits();

CREATE FUNCTION guard_coupon() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.archived_at IS DISTINCT FROM NEW.archived_at AND OLD.archived_at IS NOT NULL
       OR NEW.redeemed <> OLD.redeemed AND pg_trigger_depth() = 1
       OR to_jsonb(NEW) - '{archived_at,redeemed}'::text[] <> to_jsonb(OLD) - '{archived_at,redeemed}'::text[] THEN
        RAISE EXCEPTION 'coupon % v% never changes: archive it and make the next version', OLD.coupon_id, OLD.version
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER coupons_guarded BEFORE UPDATE OR DELETE ON coupons
    FOR EACH ROW EXECUTE FUNCTION guard_coupon();

CREATE FUNCTION guard_redemption() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE coupons SET redeemed = redeemed + 1 WHERE coupon_id = NEW.coupon_id AND version = NEW.coupon_version;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' OR OLD.removed_at IS NOT NULL
       OR to_jsonb(NEW) - 'removed_at' <> to_jsonb(OLD) - 'removed_at' THEN
        RAISE EXCEPTION 'redemption % never changes, except that it is removed once', OLD.redemption_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER coupon_redemptions_guarded BEFORE INSERT OR UPDATE OR DELETE ON coupon_redemptions
    FOR EACH ROW EXECUTE FUNCTION guard_redemption();
