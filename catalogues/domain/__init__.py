"""Catalogues as plain facts: editions, what they give, and what differs between two of them. Pure."""
