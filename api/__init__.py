"""The HTTP API: usage in, live quotas and invoices out, signed webhooks taken in, and what operators look at.

`application.py` builds the FastAPI app from `Dependencies` (ports and bounds, handed in by the entry point);
`routes/` has one file per resource; `domain/` maps the forms that callers send to usage events, pure; `adapters/`
speaks to Kafka, Redis and PostgreSQL. Only this package knows HTTP: `problems.py` turns errors into problem+json.
"""
