"""Rules of quotas: pure."""
