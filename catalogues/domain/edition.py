"""What catalogue files hold and what the stores hold of it, as values. Owns which edition may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.errors import Fault
from core.meters import Meter
from core.period import format_instant
from quotas.domain.entitlement import Entitlement, Feature
from rating.domain.plan import Plan


@dataclass(frozen=True, slots=True)
class Edition:
    """One version of a catalogue file. `digest` (SHA-256) is of all it holds but the version itself.

    In a file `version` and `effective_from` may be missing (None): the next number, and from when it is applied.
    """

    catalogue: str
    version: int | None
    effective_from: datetime | None
    digest: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the files hold: meters, features, and plans with the name of the catalogue each belongs to.

    `given` are the entitlements of each plan by the plan's id; a plan that gives none is not in it.
    """

    meters: tuple[Meter, ...]
    plans: tuple[tuple[str, Plan], ...]
    features: tuple[Feature, ...] = ()
    given: Mapping[str, tuple[Entitlement, ...]] = field(default_factory=dict)
    editions: tuple[Edition, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The newest stored version of a plan."""

    catalogue: str
    plan_id: str
    version: int
    digest: str
    document: Mapping[str, Any]
    effective_from: datetime
    given: tuple[Entitlement, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """What the stores hold, each by its id: the newest edition and plan versions, all meters and features."""

    meters: Mapping[str, Meter] = field(default_factory=dict)
    features: Mapping[str, Feature] = field(default_factory=dict)
    plans: Mapping[str, StoredPlan] = field(default_factory=dict)
    editions: Mapping[str, Edition] = field(default_factory=dict)


def next_edition(edition: Edition, newest: Edition | None, now: datetime) -> Edition | Fault | None:
    """Return the edition to store, None if it is the stored one, or why it may not follow that one.

    A version says one thing for ever: other content needs another, higher number.
    """
    version, effective_from = edition.version, edition.effective_from or now
    if newest is None or newest.version is None:
        return Edition(edition.catalogue, version or 1, effective_from, edition.digest)
    if edition.digest == newest.digest and version in (None, newest.version):
        return None
    if version is None or version == newest.version + 1:
        return Edition(edition.catalogue, newest.version + 1, effective_from, edition.digest)
    if version > newest.version:
        return Edition(edition.catalogue, version, effective_from, edition.digest)
    if version == newest.version:
        reason = f"version {version} is stored with other content: a changed catalogue is version {version + 1}"
        return Fault("edition_changed", reason, f"{edition.catalogue}.version")
    reason = f"version {newest.version} is stored already, and version {version} is older"
    return Fault("edition_outdated", reason, f"{edition.catalogue}.version")


def check_effective(edition: Edition, plan: StoredPlan) -> Fault | None:
    """Return why a new version of a stored plan may not be sold from the edition's date; None if it may.

    The version to sell at an instant is the newest that is effective then, so dates never run backwards.
    """
    if edition.effective_from is None or edition.effective_from >= plan.effective_from:
        return None
    stored = f"version {plan.version} is sold from {format_instant(plan.effective_from)}"
    reason = f"{stored}, so the next one cannot be sold from {format_instant(edition.effective_from)}"
    return Fault("effective_before_stored", reason, f"plans.{plan.plan_id}")
