"""Invoices, their lines, and what proves them. Pure: no I/O, no clock, no randomness, no logging."""
