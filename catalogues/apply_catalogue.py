"""Compares a catalogue with the stores and applies it. Owns that both see the same: what is shown is what is done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from catalogues.domain.difference import Difference, compare_catalogue
from catalogues.domain.edition import Catalogue, Stored, StoredPlan
from catalogues.ports import CatalogueStore, MeteredUsage
from core.errors import InvalidInputError, must_hold


@dataclass(frozen=True, slots=True)
class Applied:
    """What was stored: meters, features, plans with the version that was added; all of it as a difference."""

    difference: Difference

    @property
    def meters(self) -> tuple[str, ...]:
        """The meters that were added or replaced."""
        return tuple(change.name for change in self.difference.changes if change.kind == "meter")

    @property
    def features(self) -> tuple[str, ...]:
        """The features that were added or renamed."""
        return tuple(change.name for change in self.difference.changes if change.kind == "feature")

    @property
    def plans(self) -> tuple[tuple[str, int], ...]:
        """The plans with the versions that were added."""
        return tuple((c.name, c.version_after) for c in self.difference.changes if c.version_after is not None)


async def find_difference(
    catalogue: Catalogue, *, store: CatalogueStore, usage: MeteredUsage, now: datetime
) -> Difference:
    """Return what applying the catalogue now would change, and why it would be refused; stores nothing."""
    stored = Stored(await store.meters(), await store.features(), await store.plans(), await store.editions())
    replaced = {one.meter_id for one in catalogue.meters if stored.meters.get(one.meter_id, one) != one}
    in_use = await store.meters_of_plans() | await usage.meters_with_usage(replaced) if replaced else set()
    return compare_catalogue(catalogue, stored, in_use=in_use, now=now)


async def apply_catalogue(
    catalogue: Catalogue, *, store: CatalogueStore, usage: MeteredUsage, now: datetime
) -> Applied:
    """Store what is new or changed; the same catalogue again changes nothing.

    Runs in the caller's transaction. Raises `InvalidInputError` with every reason why the catalogue contradicts what is
    stored (`meter_in_use`, `feature_in_use`, `edition_changed`, `edition_outdated`, `plan_of_other_catalogue`,
    `effective_before_stored`); then nothing was written.
    """
    await store.lock()
    difference = await find_difference(catalogue, store=store, usage=usage, now=now)
    if difference.refused:
        raise InvalidInputError(list(difference.refused))
    meters = {meter.meter_id: meter for meter in catalogue.meters}
    features = {feature.feature_id: feature for feature in catalogue.features}
    plans = {plan.plan_id: (name, plan) for name, plan in catalogue.plans}
    for change in difference.changes:
        if change.kind == "meter":
            await store.put_meter(meters[change.name], now)
        elif change.kind == "feature":
            await store.put_feature(features[change.name], now)
        else:
            must_hold(change.version_after is not None and change.effective_from is not None, f"{change} has no date")
            assert change.version_after is not None
            assert change.effective_from is not None
            name, plan = plans[change.name]
            given = catalogue.given.get(plan.plan_id, ())
            added = StoredPlan(
                name, plan.plan_id, change.version_after, plan.digest, plan.document, change.effective_from, given
            )
            await store.add_plan(added, now)
    for edition in difference.editions:
        await store.add_edition(edition, now)
    return Applied(difference)
