"""What applying a catalogue would change, price by price. Pure: the same for `diff`, which shows it, and `apply`.

Documents are compared leaf by leaf, and a leaf is named by the way to it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from catalogues.domain.edition import Catalogue, Edition, Stored, StoredPlan, check_effective, next_edition
from core.errors import Fault
from core.meters import Meter
from quotas.domain.entitlement import Entitlement, Feature
from rating.domain.plan import Plan
from rating.domain.price import plain

Path = tuple[str, ...]
Kind = Literal["meter", "feature", "plan"]
ORDER = "(order)"
# What tells the items of a list apart, so that one put in between moves no other: charges, cells of a matrix, tiers.
_NAMING = ("id", "match", "up_to")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One leaf that differs; `before` is None for one that is new, `after` for one that goes. Values are JSON's."""

    path: Path
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is new or says something else; `version` counts a plan's versions, from None for a new one."""

    kind: Kind
    name: str
    catalogue: str
    is_new: bool
    fields: tuple[FieldChange, ...]
    version_before: int | None = None
    version_after: int | None = None
    effective_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """All that would change; `refused` is why nothing of it may be stored.

    `kept` are stored plans of these catalogues that their files no longer have: they stay and are sold as they are.
    """

    editions: tuple[Edition, ...] = ()
    changes: tuple[Change, ...] = ()
    refused: tuple[Fault, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    unchanged: int = 0

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to store and nothing was refused."""
        return not (self.editions or self.changes or self.refused)


def compare_catalogue(catalogue: Catalogue, stored: Stored, *, in_use: Collection[str], now: datetime) -> Difference:
    """Return what differs from what is stored; `in_use` are the meters that cannot change any more."""
    refused: list[Fault] = []
    editions = {edition.catalogue: edition for edition in catalogue.editions}
    following = [next_edition(one, stored.editions.get(one.catalogue), now) for one in catalogue.editions]
    refused += [one for one in following if isinstance(one, Fault)]
    changes = [change for meter in catalogue.meters if (change := _meter_change(meter, stored))]
    refused += [_in_use(change) for change in changes if not change.is_new and change.name in in_use]
    for feature in catalogue.features:
        known = stored.features.get(feature.feature_id)
        if known is not None and (known.kind, known.meter_id) != (feature.kind, feature.meter_id):
            reason = "it is stored as another kind, or counts another meter: give the new one another name"
            refused.append(Fault("feature_in_use", reason, f"features.{feature.feature_id}"))
        elif known != feature:
            before = _feature_document(known) if known else {}
            fields = compare_documents(before, _feature_document(feature))
            changes.append(Change("feature", feature.feature_id, "", known is None, fields))
    for name, plan in catalogue.plans:
        given = catalogue.given.get(plan.plan_id, ())
        changed = _plan_change(editions[name], plan, given, stored.plans.get(plan.plan_id), now, refused)
        changes += [changed] if changed else []
    named = {plan.plan_id for _, plan in catalogue.plans}
    kept = sorted((p.catalogue, p.plan_id) for p in stored.plans.values() if p.catalogue in editions)
    total = len(catalogue.meters) + len(catalogue.features) + len(catalogue.plans)
    return Difference(
        tuple(one for one in following if isinstance(one, Edition)),
        tuple(changes),
        tuple(refused),
        tuple(pair for pair in kept if pair[1] not in named),
        total - len(changes),
    )


def compare_documents(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """Return the leaves that differ, in the order of `after`, then what is gone; equal documents give none."""
    # What is empty altogether has no leaves: everything of the other is new, or gone.
    old, new = (dict(leaves(document)) if document else {} for document in (before, after))
    changed = [FieldChange(path, old.get(path), value) for path, value in new.items() if not _same(old, path, value)]
    return (*changed, *(FieldChange(path, value, None) for path, value in old.items() if path not in new))


def leaves(document: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every leaf with the way to it; an empty mapping and a list of plain values are leaves, too.

    The order of items that have names is a leaf of its own, because the invoice shows charges in their order.
    """
    if isinstance(document, Mapping) and document:
        for name, value in document.items():
            yield from leaves(value, (*path, name))
    elif isinstance(document, list) and any(isinstance(item, (list, Mapping)) for item in document):
        key, names = _names_of(document)
        for name, item in zip(names, document, strict=True):
            rest = {inner: value for inner, value in item.items() if inner != key} if key else item
            yield from leaves(rest, (*path, name))
        if key:
            yield (*path, ORDER), names
    else:
        yield path, document


def _names_of(items: list[Any]) -> tuple[str, list[str]]:
    """Return the field that tells the items of a list apart and their names by it; "" and their places if none does."""
    for key in _NAMING:
        values = [item[key] for item in items if isinstance(item, Mapping) and key in item]
        names = [value if key == "id" else f"[{json.dumps({key: value}, sort_keys=True)}]" for value in values]
        if len(values) == len(items) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return key, names
    return "", [f"[{index}]" for index in range(len(items))]


def given_document(given: tuple[Entitlement, ...]) -> dict[str, Any]:
    """Return what a plan gives as a document, by feature."""
    return {one.feature.feature_id: _entitlement_document(one) for one in given}


def _plan_change(
    edition: Edition,
    plan: Plan,
    given: tuple[Entitlement, ...],
    stored: StoredPlan | None,
    now: datetime,
    refused: list[Fault],
) -> Change | None:
    if stored is not None and stored.catalogue != edition.catalogue:
        reason = f"the catalogue {stored.catalogue!r} has this plan, so {edition.catalogue!r} cannot define it"
        refused.append(Fault("plan_of_other_catalogue", reason, f"plans.{plan.plan_id}"))
        return None
    gives = given_document(given)
    if stored is not None and stored.digest == plan.digest and given_document(stored.given) == gives:
        return None
    after = {**plan.document, "features": gives} if gives else plan.document
    effective_from = edition.effective_from or now
    if stored is None:
        fields = compare_documents({}, after)
        return Change("plan", plan.plan_id, edition.catalogue, True, _shown(fields), None, 1, effective_from)
    dated = Edition(edition.catalogue, edition.version, effective_from, edition.digest)
    if fault := check_effective(dated, stored):
        refused.append(fault)
    held = given_document(stored.given)
    before = {**stored.document, "features": held} if held else stored.document
    fields = _shown(compare_documents(before, after))
    version = stored.version
    return Change("plan", plan.plan_id, edition.catalogue, False, fields, version, version + 1, effective_from)


def _shown(fields: tuple[FieldChange, ...]) -> tuple[FieldChange, ...]:
    """Leave out an order that differs only because charges came or went."""
    return tuple(one for one in fields if one.path[-1] != ORDER or not _only_membership(one))


def _only_membership(order: FieldChange) -> bool:
    before, after = order.before or [], order.after or []
    return [one for one in before if one in after] == [one for one in after if one in before]


def _meter_change(meter: Meter, stored: Stored) -> Change | None:
    known = stored.meters.get(meter.meter_id)
    if known == meter:
        return None
    before = _meter_document(known) if known else {}
    return Change("meter", meter.meter_id, "", known is None, compare_documents(before, _meter_document(meter)))


def _in_use(change: Change) -> Fault:
    reason = "usage or a plan relies on what it counts: give the new meter another name"
    return Fault("meter_in_use", reason, f"meters.{change.name}")


def _meter_document(meter: Meter) -> dict[str, Any]:
    document = {name: value for name, value in asdict(meter).items() if name != "meter_id"}
    return {
        **document,
        "dimensions": list(meter.dimensions),
        "filters": [{**asdict(one), "values": list(one.values)} for one in meter.filters],
    }


def _feature_document(feature: Feature) -> dict[str, Any]:
    return {name: value for name, value in asdict(feature).items() if name != "feature_id" and value is not None}


def _entitlement_document(entitlement: Entitlement) -> Any:
    if entitlement.feature.kind != "metered":
        return entitlement.value
    document: dict[str, Any] = {"hard": entitlement.hard, "period": entitlement.period}
    if entitlement.limit is not None:
        document["limit"] = plain(entitlement.limit)
    return {**document, "rolling_hours": entitlement.rolling_hours} if entitlement.rolling_hours else document


def _same(old: Mapping[Path, Any], path: Path, value: Any) -> bool:
    # True is not 1, and 1 is not "1": what stands in a document is what its digest is of.
    return path in old and json.dumps(old[path]) == json.dumps(value)
