"""Payments: an amount due becomes at most one charge, and only a signed webhook says that the money is there.

`consumer.py` takes `invoice.finalized` and asks the provider for the money (`charge_invoice.py`). The API stores signed
webhooks (`receive_webhook.py`); `inbox_worker.py` gives them effect (`apply_webhook.py`) and announces
`payment.settled` and `payment.failed` through the outbox. `domain/` holds the life of a payment, pure;
`adapters/` PostgreSQL and Stripe. Only the provider's references are kept here, never card data.
"""
