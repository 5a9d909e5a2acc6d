"""Applies a catalogue to the stores. Owns what may change: a plan by a new version, a meter only while it is unused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from catalogues.load_catalogue import Catalogue
from catalogues.ports import CatalogueStore, MeteredUsage
from core.errors import ConflictError
from core.meters import Meter


class MeterInUseError(ConflictError):
    """A meter that was used cannot change: usage and plans already rely on what it counts."""

    code = "meter_in_use"


@dataclass(frozen=True, slots=True)
class Applied:
    """What changed: meter ids, and plan ids with the version that was added."""

    meters: tuple[str, ...]
    plans: tuple[tuple[str, int], ...]


async def apply_catalogue(
    catalogue: Catalogue, *, store: CatalogueStore, usage: MeteredUsage, now: datetime
) -> Applied:
    """Store new and changed meters and plans; the same catalogue again changes nothing.

    Runs in the caller's transaction. Raises `MeterInUseError` naming every changed meter that a stored plan charges
    for or that has usage; then nothing may be committed.
    """
    await store.lock()
    changed = await _changed_meters(catalogue, store, usage)
    for meter in changed:
        await store.put_meter(meter, now)
    added = []
    for name, plan in catalogue.plans:
        newest = await store.newest_version(plan.plan_id)
        if newest is not None and newest[1] == plan.digest:
            continue
        version = newest[0] + 1 if newest else 1
        await store.add_version(
            plan.plan_id, version, catalogue=name, digest=plan.digest, document=plan.document, now=now
        )
        added.append((plan.plan_id, version))
    return Applied(tuple(meter.meter_id for meter in changed), tuple(added))


async def _changed_meters(catalogue: Catalogue, store: CatalogueStore, usage: MeteredUsage) -> list[Meter]:
    stored = await store.meters()
    changed = [meter for meter in catalogue.meters if stored.get(meter.meter_id) != meter]
    replaced = {meter.meter_id for meter in changed if meter.meter_id in stored}
    if replaced:
        in_use = replaced & (await store.meters_of_plans() | await usage.meters_with_usage(replaced))
        if in_use:
            names = ", ".join(sorted(in_use))
            raise MeterInUseError(f"these meters are in use and cannot change: {names}; give the new ones another name")
    return changed
