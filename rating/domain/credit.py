"""Credits: money a tenant has with us before it owes any. Owns the draw order and the accounts of each entry; pure.

The ledger is append-only: a grant's balance is the sum of its entries and never below zero. Credits are no line of an
invoice; they lower what is due. A grant is drawn only while it is in effect, whoever writes down its expiry when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from itertools import pairwise

from core.errors import must_hold
from core.money import from_minor, to_minor
from rating.domain.net_lines import LineAmount, net_amounts, sum_of

PRIORITY_DEFAULT = 100


class CreditKind(Enum):
    """Whether the tenant paid for the credit or was given it."""

    PAID = "paid"
    PROMOTIONAL = "promotional"


class EntryKind(Enum):
    """What moved a grant's balance. Granted and returned raise it, all others lower it."""

    GRANTED = "granted"
    DRAWN = "drawn"
    RETURNED = "returned"
    EXPIRED = "expired"
    VOIDED = "voided"
    REFUNDED = "refunded"


class LedgerAccount(Enum):
    """The accounts an entry moves money between; `CUSTOMER_CREDITS` is the liability that balances add up to."""

    CUSTOMER_CREDITS = "customer_credits"
    CASH = "cash"
    PROMOTIONS = "promotions"
    REVENUE = "revenue"
    BREAKAGE = "breakage"


RAISING = frozenset({EntryKind.GRANTED, EntryKind.RETURNED})


@dataclass(frozen=True, slots=True)
class CreditGrant:
    """A credit as it was granted; what is left of it say its entries.

    It can be drawn in `[effective_at, expires_at)`, without end if that is None, for lines of one of `plans` and of one
    of `meters` (empty: of all). `amount` is in whole minor units of `currency`.
    """

    grant_id: str
    tenant_id: str
    kind: CreditKind
    amount: Decimal
    currency: str
    effective_at: datetime
    granted_at: datetime
    expires_at: datetime | None = None
    priority: int = PRIORITY_DEFAULT
    plans: frozenset[str] = frozenset()
    meters: frozenset[str] = frozenset()
    reason: str = ""

    @property
    def draw_order(self) -> tuple[int, datetime, bool, datetime, str]:
        """Lower priority number first, then what expires sooner, promotional before paid, granted earlier, the id."""
        expires_at = self.expires_at or datetime.max.replace(tzinfo=UTC)
        return (self.priority, expires_at, self.kind is CreditKind.PAID, self.granted_at, self.grant_id)

    def in_effect(self, at: datetime) -> bool:
        """Tell whether it can be drawn at an instant."""
        return self.effective_at <= at and (self.expires_at is None or at < self.expires_at)

    def pays_for(self, due: Due) -> bool:
        """Tell whether it may be drawn for this."""
        return (not self.plans or due.plan_id in self.plans) and (not self.meters or due.meter_id in self.meters)


@dataclass(frozen=True, slots=True)
class CreditEntry:
    """One entry of the ledger: `amount` is signed, in the grant's currency.

    `number` counts the grant's entries from 1; `balance_after` is the sum up to this one. `reference` is the cause: the
    invoice that drew or gave back, the refund's key, or "".
    """

    grant_id: str
    tenant_id: str
    number: int
    kind: EntryKind
    amount: Decimal
    currency: str
    balance_after: Decimal
    debit: LedgerAccount
    credit: LedgerAccount
    reference: str
    reason: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Credit:
    """A grant with what is left of it now."""

    grant: CreditGrant
    balance: Decimal
    is_voided: bool = False

    def available(self, at: datetime) -> Decimal:
        """Return what can be drawn at an instant."""
        return self.balance if self.grant.in_effect(at) and not self.is_voided else Decimal(0)


@dataclass(frozen=True, slots=True)
class Due:
    """A part of what an invoice asks for, as far as credits may be limited to it; whole minor units, not negative."""

    plan_id: str
    meter_id: str | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Draw:
    """How much of a grant pays for an invoice; above zero, in whole minor units."""

    grant_id: str
    amount: Decimal


def dues_of(lines: Sequence[LineAmount], currency: str) -> list[Due]:
    """Return what the lines of an invoice ask for by plan and meter, negative lines and coupons' shares set off.

    The sum is the invoice's total, or zero where that is negative. A coupon's share has a key of its own and the
    `charge_id`, `plan_id` and `meter_id` of the line it lowers.
    """
    left = net_amounts(lines, currency)
    amounts: dict[tuple[str, str | None], Decimal] = {}
    for line in lines:
        if line.key in left:
            place = (line.plan_id, line.meter_id)
            amounts[place] = amounts.get(place, Decimal(0)) + left[line.key]
    return [Due(plan_id, meter_id, amount) for (plan_id, meter_id), amount in amounts.items() if amount]


def plan_draws(credits: Iterable[Credit], dues: Sequence[Due], currency: str, at: datetime) -> list[Draw]:
    """Return what each credit pays of the dues at an instant, in the draw order; those that pay nothing are left out.

    A credit in front pays as much as it can; which part it pays for is chosen so that those behind it, which may be
    limited, can pay as much as possible. Never more than a balance, nor more than is due.
    """
    usable = [credit for credit in credits if credit.grant.currency == currency and credit.available(at) > 0]
    payment = _Payment([to_minor(due.amount, currency) for due in dues])
    drawn: list[Draw] = []
    for credit in sorted(usable, key=lambda each: each.grant.draw_order):
        payable = [place for place, due in enumerate(dues) if credit.grant.pays_for(due)]
        units = payment.pay(payable, to_minor(credit.balance, currency))
        if units:
            drawn.append(Draw(credit.grant.grant_id, from_minor(units, currency)))
    must_hold(sum_of(draw.amount for draw in drawn) <= sum_of(due.amount for due in dues), "more drawn than is due")
    return drawn


def accounts_of(kind: EntryKind, credit_kind: CreditKind) -> tuple[LedgerAccount, LedgerAccount]:
    """Return the debited and the credited account of an entry.

    What was paid came in as cash, goes back as cash, and becomes breakage when it expires unused. What was given is an
    expense (promotions) that is taken back when it is voided or expires.
    """
    given = LedgerAccount.CASH if credit_kind is CreditKind.PAID else LedgerAccount.PROMOTIONS
    counter = {
        EntryKind.GRANTED: given,
        EntryKind.DRAWN: LedgerAccount.REVENUE,
        EntryKind.RETURNED: LedgerAccount.REVENUE,
        EntryKind.EXPIRED: LedgerAccount.BREAKAGE if credit_kind is CreditKind.PAID else LedgerAccount.PROMOTIONS,
        EntryKind.VOIDED: given,
        EntryKind.REFUNDED: LedgerAccount.CASH,
    }[kind]
    liability = LedgerAccount.CUSTOMER_CREDITS
    return (counter, liability) if kind in RAISING else (liability, counter)


class _Payment:
    """Who pays what of which due, in minor units, rearranged so that nobody who came before pays less."""

    def __init__(self, dues: list[int]) -> None:
        self._open = dues
        self._payers: list[list[int]] = []
        self._paid: list[dict[int, int]] = []

    def pay(self, payable: list[int], most: int) -> int:
        """Let the next payer pay up to `most` for the dues `payable`; returns what it pays."""
        me = len(self._payers)
        self._payers.append(payable)
        self._paid.append({})
        total = 0
        while total < most and (path := self._find_way(me)):
            total += self._move(path, most - total)
        return total

    def _find_way(self, me: int) -> list[tuple[int, int]]:
        """Return steps (payer, due) from me to an open due: I take over a due from a payer, who takes the next one."""
        came_from: dict[int, tuple[int, int]] = {}
        waiting, seen = deque([me]), set[int]()
        while waiting:
            payer = waiting.popleft()
            for due in self._payers[payer]:
                if due in seen:
                    continue
                seen.add(due)
                if self._open[due]:
                    return self._trace(came_from, payer, due)
                for other in range(me):
                    if self._paid[other].get(due) and other not in came_from:
                        came_from[other] = (payer, due)
                        waiting.append(other)
        return []

    @staticmethod
    def _trace(came_from: dict[int, tuple[int, int]], payer: int, due: int) -> list[tuple[int, int]]:
        steps = [(payer, due)]
        while payer in came_from:
            payer, due = came_from[payer]
            steps.append((payer, due))
        return steps[::-1]

    def _move(self, path: list[tuple[int, int]], most: int) -> int:
        given_up = [(following, due) for (_, due), (following, _) in pairwise(path)]
        last_due = path[-1][1]
        units = min([most, self._open[last_due], *(self._paid[payer][due] for payer, due in given_up)])
        for payer, due in given_up:
            self._paid[payer][due] -= units
        for payer, due in path:
            self._paid[payer][due] = self._paid[payer].get(due, 0) + units
        self._open[last_due] -= units
        return units
