"""Tenants and subscriptions as plain facts. Pure: no I/O, no clock."""
