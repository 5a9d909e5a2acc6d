"""PostgreSQL, Stripe and PayPal behind the ports of `payments.ports`."""
