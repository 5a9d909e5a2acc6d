"""What applying a catalogue needs from the stores."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from core.meters import Meter


class CatalogueStore(Protocol):
    """Stored meters and plan versions, within one transaction."""

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

    async def newest_version(self, plan_id: str) -> tuple[int, str] | None:
        """Return the newest version's number and digest, None for an unknown plan."""
        ...

    async def add_version(
        self, plan_id: str, version: int, *, catalogue: str, digest: str, document: Mapping[str, Any], now: datetime
    ) -> None:
        """Store a plan version; it never changes again."""
        ...


class MeteredUsage(Protocol):
    """Where usage lies."""

    async def meters_with_usage(self, meter_ids: set[str]) -> set[str]:
        """Return those of the meters for which any usage was counted."""
        ...
