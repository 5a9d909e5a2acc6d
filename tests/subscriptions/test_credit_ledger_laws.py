"""The ledger against a model of it, in any order of events: on the fake and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core.errors import InvalidInputError, MeterbookError
from rating.domain.credit import CreditEntry, Due, EntryKind
from rating.draw_credits import draw_credits
from rating.return_credits import return_credits
from runtime.settings import Settings
from subscriptions.adapters.postgres_credits import PostgresCreditBooks
from subscriptions.credit_commands import credits_as_of
from subscriptions.expire_credits import expire_credits
from subscriptions.grant_credit import grant_credit
from subscriptions.refund_credit import refund_credit
from subscriptions.void_credit import void_credit
from tests.subscriptions.coupon_scene import NOW, CouponScene, open_scene

cents = st.integers(1, 5000).map(lambda units: Decimal(units).scaleb(-2))
HOURS = st.integers(1, 200)
INVOICES = st.integers(0, 5).map(lambda number: f"inv-{number}")


@dataclass
class Held:
    """A credit as the model has it."""

    grant_id: str
    left: Decimal
    is_paid: bool
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    granted_at: datetime
    is_voided: bool = False

    def order(self) -> tuple[Any, ...]:
        end = self.expires_at or NOW + timedelta(days=10_000)
        return (self.priority, end, self.is_paid, self.granted_at, self.grant_id)

    def can_be_drawn(self, at: datetime) -> bool:
        is_over = self.expires_at is not None and self.expires_at <= at
        return not self.is_voided and not is_over and self.effective_at <= at


class CreditLedgerMachine(RuleBasedStateMachine):
    """Every rule is done to the ledger and to the model; what is written never changes and always adds up."""

    engines: Settings | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.model: dict[str, Held] = {}
        self.drawn: dict[str, dict[str, Decimal]] = {}
        self.returned: set[str] = set()
        self.now = NOW
        self.known: dict[datetime, list[CreditEntry]] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize(first=st.lists(st.tuples(cents, st.booleans(), st.none() | HOURS), min_size=2, max_size=4))
    def open(self, first: list[tuple[Decimal, bool, int | None]]) -> None:
        self.scene: CouponScene = self.run(self.stack.enter_async_context(open_scene(self.engines)))
        for amount, is_paid, lasts in first:
            self.add(amount, is_paid, 1, None, lasts)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    def name(self, invoice: str) -> str:
        return f"{invoice}-{self.scene.tag}"

    @rule(
        amount=cents,
        is_paid=st.booleans(),
        priority=st.integers(0, 2),
        begins_in=st.none() | HOURS,
        lasts=st.none() | HOURS,
    )
    def grant(self, amount: Decimal, is_paid: bool, priority: int, begins_in: int | None, lasts: int | None) -> None:
        self.add(amount, is_paid, priority, begins_in, lasts)

    def add(self, amount: Decimal, is_paid: bool, priority: int, begins_in: int | None, lasts: int | None) -> None:
        effective_at = self.now + timedelta(hours=begins_in or 0)
        expires_at = None if lasts is None else effective_at + timedelta(hours=lasts)
        document: dict[str, Any] = {
            "amount": f"{amount:f}",
            "kind": "paid" if is_paid else "promotional",
            "priority": priority,
            "effective_at": effective_at.isoformat(),
        }
        if expires_at is not None:
            document["expires_at"] = expires_at.isoformat()
        key = str(len(self.model))

        async def work() -> Any:
            async with self.scene.ledger_and_facts() as (ledger, facts):
                tenant_id = self.scene.tenant_id
                return await grant_credit(tenant_id, document, key=key, ledger=ledger, facts=facts, now=self.now)

        for is_new in (True, False):
            granted, was_new = self.run(work())
            assert was_new == is_new
        self.model[granted.grant_id] = Held(
            granted.grant_id, amount, is_paid, priority, effective_at, expires_at, self.now
        )

    @rule(invoice=INVOICES, due=cents)
    def draw(self, invoice: str, due: Decimal) -> None:
        async def work() -> Any:
            async with self.scene.ledger() as ledger:
                dues = [Due("coupon-pro", None, due)]
                name = self.name(invoice)
                return await draw_credits(self.scene.tenant_id, name, dues, "USD", ledger=ledger, at=self.now)

        if invoice in self.returned:
            with pytest.raises(MeterbookError, match="given its credits back"):
                self.run(work())
            return
        if not self.drawn.get(invoice):
            self.drawn[invoice], open_amount = {}, due
            for held in sorted(self.model.values(), key=Held.order):
                part = min(held.left, open_amount)
                if held.can_be_drawn(self.now) and part:
                    self.drawn[invoice][held.grant_id] = part
                    held.left -= part
                    open_amount -= part
        for _ in range(2):
            found = self.run(work())
            assert [(each.grant_id, each.amount) for each in found] == list(self.drawn[invoice].items())

    @rule(invoice=INVOICES)
    def give_back(self, invoice: str) -> None:
        async def work() -> Any:
            async with self.scene.ledger() as ledger:
                return await return_credits(self.name(invoice), ledger=ledger, at=self.now)

        found = {each.grant_id: each.amount for each in self.run(work())}
        expected = {} if invoice in self.returned else self.drawn.get(invoice, {})
        assert found == expected
        for grant_id, amount in expected.items():
            if not self.model[grant_id].is_voided:
                self.model[grant_id].left += amount
        if expected:
            self.returned.add(invoice)
        assert self.run(work()) == []

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        held = self.model[data.draw(st.sampled_from(sorted(self.model)))]

        async def work() -> Any:
            async with self.scene.ledger() as ledger:
                return await void_credit(held.grant_id, reason="", ledger=ledger, now=self.now)

        entry = self.run(work())
        assert (entry is None) == held.is_voided
        assert entry is None or -entry.amount == held.left
        held.left, held.is_voided = Decimal(0), True

    @precondition(lambda self: self.model)
    @rule(data=st.data(), amount=st.none() | cents, key=st.integers(0, 2**32))
    def refund(self, data: st.DataObject, amount: Decimal | None, key: int) -> None:
        held = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        wanted = None if amount is None else f"{amount:f}"

        async def work() -> Any:
            async with self.scene.ledger() as ledger:
                return await refund_credit(
                    held.grant_id, wanted, key=f"{key}-{len(self.known)}", reason="", ledger=ledger, now=self.now
                )

        is_over = held.expires_at is not None and held.expires_at <= self.now
        if not held.is_paid or held.is_voided or is_over or not held.left or (amount or 0) > held.left:
            with pytest.raises(InvalidInputError):
                self.run(work())
            return
        entry, is_new = self.run(work())
        assert is_new
        assert -entry.amount == (held.left if amount is None else amount)
        held.left += entry.amount
        assert self.run(work()) == (entry, False)

    @rule()
    def expire(self) -> None:
        books = self.scene.memory_ledger if self.scene.pool is None else PostgresCreditBooks(self.scene.pool)
        found = self.run(expire_credits(books, now=self.now))  # type: ignore[arg-type]
        expected = {}
        for held in self.model.values():
            if held.left and held.expires_at is not None and held.expires_at <= self.now:
                expected[held.grant_id] = held.left
                held.left = Decimal(0)
        assert {each.grant_id: -each.amount for each in found if each.grant_id in self.model} == expected

    @rule(hours=HOURS)
    def pass_time(self, hours: int) -> None:
        self.known[self.now] = self.run(self._entries(self.now))
        self.now += timedelta(hours=hours)

    async def _entries(self, known_at: datetime | None) -> list[CreditEntry]:
        async with self.scene.ledger() as ledger:
            return await ledger.entries_of(self.scene.tenant_id, known_at=known_at)

    async def _credits(self, at: datetime) -> tuple[Any, Any]:
        async with self.scene.ledger() as ledger:
            return await ledger.credits(self.scene.tenant_id), await credits_as_of(ledger, self.scene.tenant_id, at)

    @invariant()
    def balances_are_the_sum_of_entries_and_never_below_zero(self) -> None:
        if not hasattr(self, "scene"):
            return
        credits, as_known_now = self.run(self._credits(self.now))
        assert as_known_now == credits
        assert {each.grant.grant_id: each.balance for each in credits} == {
            grant_id: held.left for grant_id, held in self.model.items()
        }
        sums: dict[str, Decimal] = {}
        for entry in self.run(self._entries(None)):
            sums[entry.grant_id] = sums.get(entry.grant_id, Decimal(0)) + entry.amount
            assert entry.balance_after == sums[entry.grant_id] >= 0
            held = self.model[entry.grant_id]
            if entry.kind is EntryKind.DRAWN:
                assert held.expires_at is None or entry.recorded_at < held.expires_at
        assert sums == {grant_id: held.left for grant_id, held in self.model.items()}

    @invariant()
    def what_was_known_is_known_for_ever(self) -> None:
        for at, entries in list(self.known.items())[-2:]:
            assert self.run(self._entries(at)) == entries


def check_machine(engines: Settings | None, examples: int, steps: int) -> None:
    machine = type("Machine", (CreditLedgerMachine,), {"engines": engines})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )


def test_the_ledger_in_memory_keeps_to_its_model() -> None:
    check_machine(None, examples=25, steps=30)


@pytest.mark.integration
def test_the_ledger_in_postgresql_keeps_to_its_model(settings: Settings) -> None:
    check_machine(settings, examples=6, steps=20)
