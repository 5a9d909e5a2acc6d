"""Rating: what usage costs under a plan, exactly.

`domain/` is the pricing language (plans, charges, one file per price model) and `rate_charges.py` its one verb. Both
are pure and are shared: the catalogue parses plans with them, the invoicing consumer rates closed periods with them.
`consumer.py` is the stage itself: it keeps the running cost of open periods.
"""
