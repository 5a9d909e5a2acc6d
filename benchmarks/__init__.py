"""Measurements of Meterbook beside its rivals. Ratios from one run on one machine; never part of the tests."""
