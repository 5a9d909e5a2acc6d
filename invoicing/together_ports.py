"""What invoicing needs to bill many tenants in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from core.meters import Meter
from core.period import Period
from invoicing.domain.usage_evidence import UsageEvidence
from invoicing.ports import Account, UsageReader
from rating.domain.windows import Windows


class TakeAloneError(Exception):
    """The account wants something that is only done in a transaction of its own; nothing was written for it."""


class AccountsTogether(Protocol):
    """Locked accounts whose documents are written together at the end.

    An account hands its reads over to others of the same kind that are asked for at the same moment, so their owners
    run as tasks beside each other. What is written and cannot wait raises `TakeAloneError`.
    """

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts by tenant; unknown tenants are absent."""
        ...

    def has_written(self, tenant_id: str) -> bool:
        """Tell whether an account has taken a number or been given something to write: it cannot be left out then."""
        ...

    async def write(self) -> None:
        """Write down all that the accounts were given."""
        ...


class BooksTogether(Protocol):
    """The accounts of all tenants, several at a time."""

    def open_together(self, tenant_ids: Sequence[str]) -> AbstractAsyncContextManager[AccountsTogether]:
        """Lock tenants' accounts in one transaction that commits unless the block raises."""
        ...


class UsageOfMany(UsageReader, Protocol):
    """Where counted usage of many tenants is read at once."""

    async def usage_of_many(
        self, tenant_ids: Collection[str], windows: Windows, *, meters: Mapping[str, Meter], month: Period
    ) -> Mapping[str, UsageEvidence]:
        """Return each tenant's usage of windows on whole minutes, as `usage` does."""
        ...
