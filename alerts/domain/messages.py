"""Why alerts are sent that no other stage announces: a cost that reached an amount, usage that is not as usual."""

from __future__ import annotations

from typing import Literal

import msgspec

from core.ids import derive_id


class SpendCrossed(msgspec.Struct, frozen=True, kw_only=True):
    """The running cost of a tenant's month reached an amount. Amounts are decimal strings in `currency`.

    `scope` is `total`, `meter:<id>` or `charge:<id>`; `arming` counts how often a correction took the cost below the
    threshold before it was reached this time.
    """

    tenant_id: str
    scope: str
    period: str
    currency: str
    threshold: str
    amount: str
    crossed_at: str
    arming: int = 0

    @property
    def alert_id(self) -> str:
        """The same crossing has the same id, however often it is found."""
        cause = (self.tenant_id, self.scope, self.period, self.currency, self.threshold, str(self.arming))
        return derive_id("alert", "spend", *cause)


class UsageAnomaly(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of a tenant's meter was not as usual. Quantities are decimal strings in the meter's unit.

    `window_start` and `window_end` bound what was judged: the unusual hour, or all of a silence so far. `usual` and
    `spread` (one sigma) are of `compared` windows as long: of the same hour of the `week`, of the `day`, or of those
    `before`. `longest_gap_hours` is the longest time without usage there was before.
    """

    tenant_id: str
    meter: str
    unit: str
    kind: Literal["jump", "drop", "silence"]
    started_at: str
    window_start: str
    window_end: str
    quantity: str
    usual: str
    spread: str
    compared: int
    compared_with: Literal["week", "day", "before"]
    history_days: int
    longest_gap_hours: int
    found_at: str

    @property
    def alert_id(self) -> str:
        """One per stretch of unusual usage."""
        return derive_id("alert", "anomaly", self.tenant_id, self.meter, self.kind, self.started_at)
