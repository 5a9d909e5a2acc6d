"""Puts questions together that tasks ask at the same moment, so that the stores are asked once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aiodataloader import DataLoader

from core.meters import Meter
from core.period import Period
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.together_ports import UsageOfMany
from rating.domain.fine_usage import Entries, FineUsage
from rating.domain.windows import Windows

Q = TypeVar("Q")
A = TypeVar("A")


def asked_once(ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> Callable[[Q], Awaitable[A]]:
    """Return what asks one question; those of the same moment go to `ask` together, which answers them in order.

    Nothing is remembered: what is asked again may have another answer.
    """

    async def load(questions: list[Q]) -> list[A]:
        return list(await ask(questions))

    loader: DataLoader[Q, A] = DataLoader(load, cache=False)
    return loader.load


@dataclass(frozen=True, slots=True)
class _Asked:
    tenant_id: str
    windows: Windows
    month: Period


class UsageTogether:
    """A `UsageReader` that reads the same windows of many tenants at once."""

    def __init__(self, usage: UsageOfMany) -> None:
        self._usage = usage
        self._meters: Mapping[str, Meter] = {}
        self._load = asked_once(self._read)

    async def usage(
        self, tenant_id: str, windows: Windows, *, meters: Mapping[str, Meter], month: Period
    ) -> UsageEvidence:
        """Return the usage of windows on whole minutes."""
        self._meters = meters
        return await self._load(_Asked(tenant_id, windows, month))

    async def fine_usage(
        self, tenant_id: str, windows: Windows, wanted: Collection[FineUsage], *, meters: Mapping[str, Meter]
    ) -> Entries:
        """Return the usage of windows by quarter hours or single events, as it is wanted."""
        return await self._usage.fine_usage(tenant_id, windows, wanted, meters=meters)

    async def _read(self, asked: Sequence[_Asked]) -> list[UsageEvidence]:
        alike: dict[tuple[Windows, Period], list[str]] = {}
        for one in asked:
            alike.setdefault((one.windows, one.month), []).append(one.tenant_id)
        found: dict[_Asked, UsageEvidence] = {}
        for (windows, month), tenant_ids in alike.items():
            usage = await self._usage.usage_of_many(tenant_ids, windows, meters=self._meters, month=month)
            found |= {_Asked(tenant_id, windows, month): usage[tenant_id] for tenant_id in tenant_ids}
        return [found[one] for one in asked]
