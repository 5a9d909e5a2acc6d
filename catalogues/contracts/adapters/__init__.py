"""Where contracts are stored: PostgreSQL."""
