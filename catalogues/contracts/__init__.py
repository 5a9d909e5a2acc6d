"""Contracts: a tenant's own prices and terms for a plan, as YAML, checked against the plan, stored for good."""
