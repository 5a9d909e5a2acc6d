"""A catalogue's and contracts' stores in memory; they pass the same tests as the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from catalogues.contracts.ports import HeldTerms, StoredContract
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


class MemoryContractStore:
    def __init__(self, zones: dict[str, str], plans: dict[str, Mapping[str, Any]], meters: Mapping[str, Meter]) -> None:
        self._zones, self._plans, self._meters = zones, plans, dict(meters)
        self._contracts: list[StoredContract] = []
        self.held: list[HeldTerms] = []

    async def lock_tenant(self, tenant_id: str) -> str | None:
        return self._zones.get(tenant_id)

    async def meters(self) -> dict[str, Meter]:
        return self._meters

    async def newest_plan(self, plan_id: str) -> HeldTerms | None:
        return HeldTerms(1, self._plans[plan_id], {}) if plan_id in self._plans else None

    async def held_terms(self, tenant_id: str, plan_id: str) -> Sequence[HeldTerms]:
        return self.held

    async def versions(self, contract_id: str) -> list[StoredContract]:
        return [one for one in self._contracts if one.contract.contract_id == contract_id]

    async def contracts(self, tenant_id: str | None = None) -> list[StoredContract]:
        found = [one for one in self._contracts if one.withdrawn_at is None]
        found = [one for one in found if tenant_id in (None, one.contract.tenant_id)]
        return sorted(found, key=lambda one: (one.contract.tenant_id, one.contract.plan_id, one.contract.valid_from))

    async def add(self, contract: StoredContract) -> None:
        standing = [one.contract for one in self._contracts if one.withdrawn_at is None]
        assert not any(one.overlaps(contract.contract) for one in standing), "as the database would refuse"
        self._contracts.append(contract)

    async def shorten(self, contract_id: str, version: int, until: datetime, now: datetime) -> None:
        self._change(
            contract_id,
            version,
            lambda one: replace(one, contract=replace(one.contract, valid_until=until), shortened_at=now),
        )

    async def withdraw(self, contract_id: str, version: int, now: datetime) -> None:
        self._change(contract_id, version, lambda one: replace(one, withdrawn_at=now))

    def _change(self, contract_id: str, version: int, change: Callable[[StoredContract], StoredContract]) -> None:
        self._contracts = [
            change(one) if (one.contract.contract_id, one.contract.version) == (contract_id, version) else one
            for one in self._contracts
        ]
