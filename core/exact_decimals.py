"""The process's decimal context: how many digits there are, and that floats are refused; set when `core` is imported.

Python's default rounds silently at 28 digits: a sum of usage in its scaled form (`core.quantity`) may have 38.
"""

from __future__ import annotations

import decimal

PRECISION = 60

_CONTEXT = decimal.Context(
    prec=PRECISION,
    rounding=decimal.ROUND_HALF_UP,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.FloatOperation],
)
# For threads that are still to start, and for this one.
decimal.DefaultContext.prec = PRECISION
decimal.DefaultContext.traps[decimal.FloatOperation] = True
decimal.setcontext(_CONTEXT.copy())
