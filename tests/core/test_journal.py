"""A reader of the journal notices entries that never came."""

from __future__ import annotations

import pytest

from core.errors import BrokenInvariantError
from core.journal import must_follow
from tests.metering.reconcile.memory import entry


def test_entries_follow_each_other_and_may_come_again() -> None:
    first, second = entry(5, 9, previous_last=4), entry(12, 20, previous_last=9)
    known = must_follow(first, 0)  # whatever came before: this reader knows nothing yet
    assert known == 10
    known = must_follow(second, known)
    assert known == 21
    assert must_follow(first, known) == 21
    assert must_follow(second, known) == 21


def test_a_hole_is_refused() -> None:
    with pytest.raises(BrokenInvariantError, match="10 to 11 were never read"):
        must_follow(entry(12, 20, previous_last=11), 10)
