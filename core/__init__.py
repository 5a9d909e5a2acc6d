"""The shared words of Meterbook: money, quantities, periods, identities, the clock, errors, meters, events and topics.

Everything here is pure: no I/O, no clock of its own, no randomness, no logging. Every stage may import `core`;
`core` imports no stage.
"""
