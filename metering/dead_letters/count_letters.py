"""Count letters by topic and code. Owns that each is read once: counts are kept, and only new letters are added."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

from core.clock import Clock
from core.topics import BILLING_REJECTED, DAY_MS, USAGE_REJECTED
from metering.dead_letters.domain.letter_filter import LETTER_TOPICS
from metering.dead_letters.ports import CodeCount, Letters, LetterTallies

_BLOCK = 2_000
_RETENTION_MS = {topic.name: topic.retention_ms for topic in (USAGE_REJECTED, BILLING_REJECTED)}


async def count_letters(
    *, letters: Letters, tallies: LetterTallies, clock: Clock, looked_at_max: int | None = None
) -> tuple[list[CodeCount], bool]:
    """Return the counts by topic and code, and whether they reach to the present end of the topics.

    At most `looked_at_max` new letters are read, so that a first call on a large backlog stays short. A letter counts
    until its topic's retention is over, by whole days.
    """
    complete = await _add_new(letters, tallies, looked_at_max)
    today = clock.now().date()
    return await tallies.counts({topic: _kept_since(topic, today) for topic in LETTER_TOPICS}), complete


async def _add_new(letters: Letters, tallies: LetterTallies, looked_at_max: int | None) -> bool:
    progress = await tallies.progress()
    left = looked_at_max
    for partition, (first, end) in sorted((await letters.bounds(LETTER_TOPICS)).items()):
        at = progress.get(partition, 0)
        if at > end:
            # The topic was made anew: what was counted is gone.
            await tallies.start_over(partition, first)
            at = first
        while at < end:
            if left is not None and left <= 0:
                return False
            start = max(at, first)
            stop = min(end, start + _BLOCK)
            heads = await letters.heads(partition, start, stop)
            days: Counter[tuple[str, date]] = Counter((head.code, _day(head.at_ms)) for head in heads)
            if not await tallies.add(partition, at, stop, days):
                break  # somebody else is counting this partition now
            at = stop
            if left is not None:
                left -= max(1, len(heads))
    return True


def _kept_since(topic: str, today: date) -> date | None:
    kept_ms = _RETENTION_MS[topic]
    return None if kept_ms < 0 else today - timedelta(days=kept_ms // DAY_MS)


def _day(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).date()
