"""The pricing language: plans, charges and price models. Pure: no I/O, no clock, no randomness, no logging."""
