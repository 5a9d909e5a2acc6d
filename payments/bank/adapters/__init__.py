"""The bank desk's store in PostgreSQL."""
