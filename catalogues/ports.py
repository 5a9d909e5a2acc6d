"""What applying a catalogue needs from the stores."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from catalogues.domain.edition import Edition, StoredPlan
from core.meters import Meter
from quotas.domain.entitlement import Feature


class CatalogueStore(Protocol):
    """Stored meters, features, plan versions and editions, within one transaction."""

    async def lock(self) -> None:
        """Let one apply at a time through, until the transaction ends."""
        ...

    async def meters(self) -> dict[str, Meter]:
        """Return all meters by id."""
        ...

    async def meters_of_plans(self) -> set[str]:
        """Return the meters that any stored plan version charges for."""
        ...

    async def put_meter(self, meter: Meter, now: datetime) -> None:
        """Add the meter or replace the one of the same id."""
        ...

    async def features(self) -> dict[str, Feature]:
        """Return all features by id."""
        ...

    async def put_feature(self, feature: Feature, now: datetime) -> None:
        """Add the feature, or give the one of the same id another name."""
        ...

    async def plans(self) -> dict[str, StoredPlan]:
        """Return the newest version of every plan, by id, with what that version gives."""
        ...

    async def add_plan(self, plan: StoredPlan, now: datetime) -> None:
        """Store a plan version and what it gives; neither ever changes again."""
        ...

    async def editions(self) -> dict[str, Edition]:
        """Return the newest edition of every catalogue, by name."""
        ...

    async def add_edition(self, edition: Edition, now: datetime) -> None:
        """Store an edition, which has a version and a date; it never changes again."""
        ...


class MeteredUsage(Protocol):
    """Where usage lies."""

    async def meters_with_usage(self, meter_ids: set[str]) -> set[str]:
        """Return those of the meters for which any usage was counted."""
        ...
