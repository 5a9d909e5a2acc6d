-- Approved PayPal orders whose money was asked for: written before the call, so that nobody asks at the same time.
CREATE TABLE paypal_captures (
    payment_id         text PRIMARY KEY REFERENCES payments,
    asked              integer NOT NULL CHECK (asked > 0),
    next_ask_at        timestamptz NOT NULL,
    -- PayPal's id of the capture; once it is known, nobody asks again.
    capture_id         text UNIQUE,
    captured_at        timestamptz,
    CHECK ((capture_id IS NULL) = (captured_at IS NULL))
);

-- A payer who was told where to go and did not is told once more, when half of the time is over.
ALTER TABLE payer_actions ADD COLUMN reminded_at timestamptz;
