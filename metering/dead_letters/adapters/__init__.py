"""Letters on Kafka, actions in PostgreSQL."""
