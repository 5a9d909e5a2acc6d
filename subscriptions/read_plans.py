"""Reads the plans that timelines hold, each version under its overrides once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import NotFoundError
from core.meters import Meter
from rating.domain.digest import digest_of
from rating.domain.override_plan import override_plan
from rating.domain.plan import Plan, parse_plan
from rating.domain.timeline import Timeline
from subscriptions.domain.limits import plans_held
from subscriptions.ports import SubscriptionStore


class PlansHeld:
    """Plans by id, version and overrides; call it like a function."""

    def __init__(self, meters: Mapping[str, Meter]) -> None:
        self._meters = meters
        self._plans: dict[tuple[str, int, str], Plan] = {}

    async def add(self, plan_id: str, version: int, overrides: Mapping[str, Any], store: SubscriptionStore) -> Plan:
        """Read a plan version under overrides; raises `NotFoundError`, `InvalidInputError` (overrides do not fit)."""
        key = (plan_id, version, digest_of(dict(overrides)))
        if key not in self._plans:
            stored = await store.plan(plan_id, version)
            if stored is None:
                raise NotFoundError(f"no version {version} of plan {plan_id!r}")
            path = f"plans.{plan_id} (with overrides)" if overrides else ""
            self._plans[key] = parse_plan(plan_id, override_plan(stored.document, overrides), self._meters, path=path)
        return self._plans[key]

    def __call__(self, plan_id: str, version: int, overrides: Mapping[str, Any]) -> Plan:
        """Return a plan that was read before."""
        return self._plans[(plan_id, version, digest_of(dict(overrides)))]


async def read_plans(timelines: Iterable[Timeline], store: SubscriptionStore) -> PlansHeld:
    """Return every plan that the timelines ever hold; raises `NotFoundError`, `InvalidInputError`."""
    plans = PlansHeld(await store.meters())
    for timeline in timelines:
        for phase in timeline.phases:
            for plan_id, version, overrides in plans_held(phase.held):
                await plans.add(plan_id, version, overrides, store)
    return plans
