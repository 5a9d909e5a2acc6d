"""A catalogue's and contracts' stores in memory; they pass the same tests as the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from catalogues.domain.edition import Edition, StoredPlan
from core.meters import Meter
from quotas.domain.entitlement import Feature


class MemoryCatalogueStore:
    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._features: dict[str, Feature] = {}
        self._versions: dict[str, list[StoredPlan]] = {}
        self._editions: dict[str, Edition] = {}

    async def lock(self) -> None:
        return

    async def meters(self) -> dict[str, Meter]:
        return dict(self._meters)

    async def meters_of_plans(self) -> set[str]:
        documents = [plan.document for versions in self._versions.values() for plan in versions]
        return {charge["meter"] for document in documents for charge in document["charges"] if "meter" in charge}

    async def put_meter(self, meter: Meter, now: datetime) -> None:
        self._meters[meter.meter_id] = meter

    async def features(self) -> dict[str, Feature]:
        return dict(self._features)

    async def put_feature(self, feature: Feature, now: datetime) -> None:
        self._features[feature.feature_id] = feature

    async def plans(self) -> dict[str, StoredPlan]:
        return {plan_id: versions[-1] for plan_id, versions in self._versions.items()}

    async def add_plan(self, plan: StoredPlan, now: datetime) -> None:
        self._versions.setdefault(plan.plan_id, []).append(plan)
        assert len(self._versions[plan.plan_id]) == plan.version

    async def editions(self) -> dict[str, Edition]:
        return dict(self._editions)

    async def add_edition(self, edition: Edition, now: datetime) -> None:
        self._editions[edition.catalogue] = edition


@dataclass
class MemoryUsage:
    used: set[str] = field(default_factory=set)

    async def meters_with_usage(self, meter_ids: set[str]) -> set[str]:
        return meter_ids & self.used
