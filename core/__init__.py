"""The shared words of Meterbook: money, quantities, periods, identities, the clock, errors, meters, events and topics.

Everything here is pure: no I/O, no clock of its own, no randomness, no logging. Every stage may import `core`;
`core` imports no stage.
"""

# For its effect: whoever imports anything of the core computes exactly.
import core.exact_decimals  # noqa: F401
