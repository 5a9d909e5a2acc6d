"""What quotas need of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from quotas.domain.reading import Snapshot


class LiveView(Protocol):
    """Live totals as the quota agent keeps them in Redis."""

    async def fetch(
        self,
        tenant: str,
        keys: Sequence[tuple[str, str]],
        earlier: Sequence[tuple[str, Sequence[str]]],
        start: datetime,
    ) -> Snapshot:
        """Return the hashes of (meter, period) keys, then for each (meter, periods) of `earlier` the first that counts.

        Of the earlier periods the first counts whose level was set at `start` or before. One round trip;
        `UnavailableError` if the view does not answer.
        """
        ...
