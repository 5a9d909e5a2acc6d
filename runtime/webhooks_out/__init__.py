"""Outgoing webhooks, signed as Standard Webhooks (https://www.standardwebhooks.com) asks, for any stage.

A stage calls `queue.enqueue` in the transaction of what it tells; the worker (`worker.py`) sends until the receiver has
it: the same `webhook-id` on every try, a fixed schedule of pauses, no redirects, and no address inside our own network.
"""
