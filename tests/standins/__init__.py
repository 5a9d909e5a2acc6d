"""Stand-ins for the providers Meterbook talks to: Stripe, a Slack incoming webhook and a mail server.

Real HTTP and SMTP servers on loopback, so that the product's own client libraries run unchanged. They enforce what the
providers document (idempotency keys, signatures, state rules) and break on demand through `/_control/…`.
Start them with `python -m tests.standins` or `tests.standins.process.start_standins`.
"""
