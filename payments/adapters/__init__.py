"""PostgreSQL and Stripe behind the ports of `payments.ports`."""
