"""The life of a payment, how amounts due and webhooks are read: pure, no I/O, no clock."""
