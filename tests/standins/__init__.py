"""Stand-ins for the providers Meterbook talks to: Stripe, a Slack incoming webhook and a mail server.

Real HTTP and SMTP servers on loopback, so that the product's own client libraries run unchanged. They enforce what the
providers document (idempotency keys, signatures, state rules) and break on demand through `/_control/…`.
Start them with `python -m tests.standins --state-file FILE` or `tests.standins.process.start_standins`; state is in
memory and ends with the process.

Where they differ from the providers, on purpose: Stripe's stand-in knows cards and automatic capture only and refuses
every other parameter instead of ignoring it; retries of webhooks come within seconds instead of hours; search has no
lag; events made while no endpoint is set are listed but never delivered, as with an endpoint added later.
"""
