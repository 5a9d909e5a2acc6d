"""Live quotas as others read them: current usage, entitlements with grants, reservations that never overshoot.

The quota agent (`streams`) writes the totals; who reads them, the API first, comes here.
"""
