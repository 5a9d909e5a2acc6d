"""The nightly sweep: fetches a provider's events and puts them into the inbox, for webhooks that never came.

What came by webhook is there already and stays; what did not takes the same way as if it had. The mark up to which was
swept moves only after all of it is kept, so a sweep that breaks off is done again.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from prometheus_client import Counter

from core.clock import Clock
from payments.ports import EventSource, SweepStore, WebhookInbox

# Events of one instant appear in the list a little apart.
_OVERLAP = timedelta(hours=1)
_SETTLING = timedelta(minutes=1)
SWEEP_EVERY = timedelta(days=1)
_SWEPT = Counter("meterbook_provider_events_swept_total", "Events seen by the sweep", ["provider", "outcome"])
log = structlog.get_logger()


async def sweep_provider_events(
    *, source: EventSource, inbox: WebhookInbox, store: SweepStore, history: timedelta, clock: Clock
) -> int:
    """Keep every event since the last sweep, at first those of `history`; returns how many had never come.

    Raises `UnavailableError` if the provider or the inbox does not answer: the next sweep begins where this one did.
    """
    until = clock.now() - _SETTLING
    last = await store.swept_until(source.name)
    since = max(until - history, last - _OVERLAP) if last is not None else until - history
    seen = missed = 0
    async for webhook in source.list_events(since, until):
        seen += 1
        missed += await inbox.add(webhook, clock.now())
    await store.set_swept_until(source.name, until)
    _SWEPT.labels(source.name, "known").inc(seen - missed)
    _SWEPT.labels(source.name, "missed").inc(missed)
    level = log.warning if missed else log.info
    level("events.swept", provider=source.name, since=since.isoformat(), seen=seen, missed=missed)
    return missed


async def is_sweep_due(provider: str, *, store: SweepStore, clock: Clock) -> bool:
    """Whether a day has passed since the last sweep, or there was none."""
    last = await store.swept_until(provider)
    return last is None or clock.now() - last >= SWEEP_EVERY
