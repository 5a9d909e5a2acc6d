"""Adds judged events up that nobody has seen before. Owns what a duplicate is.

`core.native.reader.add_up` is the same in C and takes its place where it was built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core import native
from core.usage_event import Measure, UsageEvent
from streams.domain.cells import MINUTE_US, WindowKey

# (tenant, time_us, identity, digest, measures), and the samples as a sixth if there are any.
JudgedEvent = tuple[Any, ...]


def judged(event: UsageEvent) -> JudgedEvent:
    """Return what adding up needs of an event."""
    plain = event.tenant, event.time_us, event.identity, event.digest, event.measures
    return (*plain, event.samples) if event.samples else plain


def add_up_in_python(
    events: list[JudgedEvent],
    places: list[int],
    recent: dict[bytes, int],
    old: dict[int, int],
    identities: dict[bytes, int],
    accepted_places: list[int],
    windows: dict[WindowKey, list[int]],
    newest_us: int,
) -> tuple[int, int, list[int], list[int]]:
    """Add events to `windows` whose identity is in none of `recent`, `identities` and (by number) `old`.

    Writes what is accepted to `identities` and `accepted_places`. Returns how many were duplicates, the greatest event
    time, the places of twins whose digest differs from the first's, and the numbers of accepted events with samples.
    """
    duplicates = 0
    twins: list[int] = []
    sampled: list[int] = []
    for number, event in enumerate(events):
        tenant: str = event[0]
        time_us: int = event[1]
        identity: bytes = event[2]
        first_digest = recent.get(identity)
        if first_digest is None:
            first_digest = identities.get(identity)
            if first_digest is None and old:
                first_digest = old.get(number)
        if first_digest is not None:
            if first_digest == event[3]:
                duplicates += 1
            else:
                twins.append(places[number])
            continue
        identities[identity] = event[3]
        accepted_places.append(places[number])
        if len(event) > 5:
            sampled.append(number)
        if time_us > newest_us:
            newest_us = time_us
        start = time_us // MINUTE_US * 60
        measures: list[Measure] = event[4]
        for meter, dimensions, quantity in measures:
            key = (tenant, meter, dimensions, start)
            cell = windows.get(key)
            if cell is None:
                windows[key] = [quantity, 1]
            else:
                cell[0] += quantity
                cell[1] += 1
    return duplicates, newest_us, twins, sampled


AddUp = Callable[..., tuple[int, int, list[int], list[int]]]
add_up: AddUp = add_up_in_python if native.reader is None else native.reader.add_up
