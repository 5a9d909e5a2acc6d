"""Payments: an amount due becomes at most one charge, and only the provider's own word says that the money is there.

`consumer.py` takes `invoice.finalized` and asks the provider for the money (`charge_invoice.py`). The API stores signed
webhooks (`receive_webhook.py`); `inbox_worker.py` gives them effect (`apply_webhook.py`, `apply_aftermath.py`) and
announces `payment.settled`, `payment.failed`, `payment.refunded` and `payment.disputed` through the outbox.
`upkeep_worker.py` does what takes time: 3-D Secure (`ask_payers.py`), look-ups of open outcomes
(`close_pending_payments.py`), the sweep of events (`sweep_provider_events.py`). `paypal_worker.py` captures what was
approved at PayPal (`capture_paypal_order.py`; docs/paypal.md). `domain/` holds the lives of payments, refunds and
disputes, pure; `adapters/` PostgreSQL and the providers. Only the provider's references are kept here, never card data.
docs/payments.md tells the whole.
"""
