"""Invoicing's stores: books in PostgreSQL, usage and facts in ClickHouse, requests on Kafka, PDFs in a folder."""
