"""Subscriptions: tenants, the plan each is on, the contract's overrides, and the quota limits that follow from both."""
