"""Where tenants and subscriptions are stored: PostgreSQL."""
