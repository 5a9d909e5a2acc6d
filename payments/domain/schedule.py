"""When an unknown or slow outcome is looked up: 5 minutes after the start, an hour after it, then daily.

Bank debits stay in process for days, so the look-ups go on until there is an outcome.
"""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST_CHECK_AFTER = timedelta(minutes=5)
_SECOND_CHECK_AFTER = timedelta(hours=1)
_LATER_CHECKS_EVERY = timedelta(days=1)


def next_check_after(checks: int, started_at: datetime, now: datetime) -> datetime:
    """Return when to look the next time, after `checks` look-ups (at least one), the last of them now."""
    if checks <= 1:
        return max(started_at + _SECOND_CHECK_AFTER, now + FIRST_CHECK_AFTER)
    return now + _LATER_CHECKS_EVERY
