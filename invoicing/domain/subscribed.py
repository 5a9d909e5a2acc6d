"""A subscription with all that its invoices depend on besides usage. Owns how stored plans become priced ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from core.errors import BrokenInvariantError, InvalidInputError
from core.meters import Meter
from rating.domain.contract import Contract as ContractVersion
from rating.domain.coupon import Redemption
from rating.domain.digest import digest_of
from rating.domain.override_plan import override_plan
from rating.domain.plan import Plan, parse_plan
from rating.domain.timeline import Change, SubscriptionStart, Timeline, build_timeline, lay_contracts
from rating.rate_timeline import PlanOf, PlanReference

_PLANS_KEPT = 1_000
_digests: dict[int, tuple[Mapping[str, Any], str]] = {}
_read_before: dict[tuple[str, str, str, tuple[Meter, ...]], Plan] = {}


# Without slots, so that what is asked for again and again is worked out once.
@dataclass(frozen=True)
class Subscribed:
    """How a subscription began and every change since; its tenant's contracts; the plan versions it ever holds.

    `documents` are the stored plan versions by id and version.
    """

    start: SubscriptionStart
    changes: tuple[Change, ...] = ()
    contracts: tuple[ContractVersion, ...] = ()
    documents: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    redemptions: tuple[Redemption, ...] = ()

    @property
    def subscription_id(self) -> str:
        """The subscription's id."""
        return self.start.subscription_id

    def timeline(self, *, known_at: datetime | None = None, also: Sequence[Change] = ()) -> Timeline:
        """Return what is held when, contracts laid over; `also` are changes that might be made."""
        if known_at is None and not also:
            return self._timeline
        return self._build(known_at, also)

    @cached_property
    def _timeline(self) -> Timeline:
        return self._build(None, ())

    def _build(self, known_at: datetime | None, also: Sequence[Change]) -> Timeline:
        timeline = build_timeline(self.start, (*self.changes, *also), known_at=known_at)
        return lay_contracts(timeline, self.contracts)

    @cached_property
    def _read(self) -> dict[int, tuple[Mapping[str, Meter], dict[str, Plan]]]:
        """The plans read with some meters, by the meters' identity; the meters themselves, so that it stays theirs."""
        return {}

    def knowing(self, documents: Mapping[tuple[str, int], Mapping[str, Any]]) -> Subscribed:
        """Return the same with further plan versions."""
        return replace(self, documents={**self.documents, **documents})

    def plan_of(self, meters: Mapping[str, Meter]) -> PlanOf:
        """Return what reads the plan versions; one that cannot be read is our own mistake (`BrokenInvariantError`)."""
        _, read = self._read.setdefault(id(meters), (meters, {}))

        def plan_of(plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
            text = PlanReference(plan_id, version, overrides).text
            if text not in read:
                read[text] = read_plan_version(self.documents, plan_id, version, overrides, meters)
            return read[text]

        return plan_of


def read_plan_version(
    documents: Mapping[tuple[str, int], Mapping[str, Any]],
    plan_id: str,
    version: int,
    overrides: Mapping[str, Any],
    meters: Mapping[str, Meter],
) -> Plan:
    """Return a stored plan version with overrides laid over it; raises `BrokenInvariantError`."""
    document = documents.get((plan_id, version))
    if document is None:
        raise BrokenInvariantError(f"there is no plan {plan_id} v{version}")
    # By content: reading a plan costs ten times what its digest does, and most tenants hold the same few.
    key = (plan_id, _digest_of_stored(document), digest_of(dict(overrides)), tuple(meters.values()))
    plan = _read_before.get(key)
    if plan is None:
        try:
            plan = parse_plan(plan_id, override_plan(document, overrides), meters)
        except InvalidInputError as error:
            raise BrokenInvariantError(f"stored plan {plan_id} v{version}: {error}") from error
        if len(_read_before) >= _PLANS_KEPT:
            _read_before.clear()
        _read_before[key] = plan
    return plan


def _digest_of_stored(document: Mapping[str, Any]) -> str:
    """Return a stored document's digest, worked out once for all tenants who were read together.

    Nobody changes a stored document. It is kept beside its digest, so that no other can take its place in memory.
    """
    found = _digests.get(id(document))
    if found is None:
        if len(_digests) >= _PLANS_KEPT:
            _digests.clear()
        found = _digests[id(document)] = (document, digest_of(document))
    return found[1]


def latest_effect(change: Change, changes: Iterable[Change]) -> datetime:
    """Return from when on a change makes a difference: taking one back does from when that one would have counted."""
    withdrawn = change.payload.get("sequence")
    undone = [one.effective_at for one in changes if one.sequence == withdrawn]
    return min([change.effective_at, *undone])
