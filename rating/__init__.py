"""Rating: what usage and subscriptions cost under a plan, exactly.

`domain/` is the pricing language (plans, charges, one file per price model and per adjustment) and what subscriptions
hold; `rate_charges.py` rates charges, `rate_timeline.py` a billing period, `rate_slices.py` a part of one. All are pure
and shared: catalogues read plans with them, invoices, running costs and the commands `rate`, `prorate`, `explain` and
`simulate` rate with them. `consumer.py` is the stage itself: it keeps the running cost of open periods.
"""
