"""Dead letters: found, looked at, sent back to where they came from, or put away for good.

Letters stay on their topics for ever unchanged; PostgreSQL knows what became of each.
"""
