"""SQL of both stores: `schema.sql` is the present shape, `migrations/` the way there; a test keeps them equal."""
