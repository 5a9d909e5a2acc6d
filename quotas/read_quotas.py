"""Reads live usage: any meters of a tenant, by one span, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from core.calendar import Calendar
from core.errors import InvalidInputError
from core.meters import Meter
from quotas.domain.reading import Reading, make_reading, want
from quotas.domain.span import Span
from quotas.ports import LiveView


async def read_quotas(
    view: LiveView, tenant: str, meters: Sequence[Meter], span: Span, *, calendar: Calendar, now: datetime
) -> list[Reading]:
    """Return one reading per meter, in order; a meter that cannot be read by this span has no quantity.

    Raises `UnavailableError` if the view does not answer.
    """
    wanted = []
    for meter in meters:
        try:
            wanted.append(want(meter, span))
        except InvalidInputError:
            continue
    keys = [(each.meter.meter_id, period) for each in wanted for period in each.periods]
    earlier = [(each.meter.meter_id, each.before) for each in wanted if each.before]
    snapshot = await view.fetch(tenant, keys, earlier, span.window.start)
    hashes, levels = iter(snapshot.hashes[: len(keys)]), iter(snapshot.hashes[len(keys) :])
    found = {}
    for each in wanted:
        own = [next(hashes) for _ in each.periods]
        level = next(levels) if each.before else {}
        found[each.meter.meter_id] = make_reading(each, span, snapshot, own, level, calendar, now)
    is_stale = not (snapshot.has_hours if span.kind == "rolling" else snapshot.is_filled)
    return [
        found.get(meter.meter_id) or Reading(meter.meter_id, span.window, None, 0, None, is_stale) for meter in meters
    ]
