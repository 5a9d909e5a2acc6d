"""Kafka, Redis, PostgreSQL and the documents' folder behind the ports of `api.ports`."""
