"""Whatever happens to an invoice in whatever order, dunning does nothing twice and nothing to who owes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from payments.domain.payment import PaymentStatus
from payments.dunning.domain.case import SEVERITY, Stage
from payments.dunning.domain.decline import HARD_DECLINES
from tests.payments.dunning.memory import attempt_of
from tests.payments.dunning.test_stories import ISSUED, Scene

OPEN = {PaymentStatus.PENDING, PaymentStatus.PROCESSING, PaymentStatus.REQUIRES_ACTION}
codes = st.sampled_from(["insufficient_funds", "do_not_honor", "lost_card", "expired_card", "authentication_abandoned"])
answers = st.one_of(
    st.tuples(st.just(PaymentStatus.FAILED), codes),
    st.tuples(st.sampled_from([PaymentStatus.PROCESSING, PaymentStatus.REQUIRES_ACTION]), st.just("")),
)


class Dunning(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.methods = 0

    @property
    def last(self) -> PaymentStatus | None:
        return self.scene.invoice.attempts[-1].status if self.scene.invoice.attempts else None

    @rule(hours=st.integers(min_value=1, max_value=400))
    def time_passes(self, hours: int) -> None:
        self.scene.clock.advance(timedelta(hours=hours))

    @rule(answer=answers)
    def look(self, answer: tuple[PaymentStatus, str]) -> None:
        scene, before = self.scene, self.scene.record()
        scene.provider.answers = [answer]
        was_open, was_paused = scene.invoice.is_open, "acme" in scene.book.paused
        attempts, saved_at = scene.invoice.attempts, scene.invoice.method_saved_at
        asyncio.run(scene.look())
        taken = len(scene.steps()) - len(before[0])
        charged = len(scene.provider.charged) - len(before[2])
        assert taken <= 1, "one step at a time"
        assert charged <= taken
        if not was_open or was_paused or (attempts and attempts[-1].status in OPEN):
            assert (taken, charged) == (0, 0)
        if charged:
            last = attempts[-1]
            assert last.status in {PaymentStatus.FAILED, PaymentStatus.CANCELED}
            assert saved_at is not None
            assert last.code not in HARD_DECLINES or saved_at > last.created_at
            assert scene.provider.charged[-1][1] == scene.invoice.amount_open

    @precondition(lambda self: self.scene.invoice.is_open and self.last is None)
    @rule(answer=answers)
    def first_charge(self, answer: tuple[PaymentStatus, str]) -> None:
        attempt = attempt_of(self.scene.invoice, *answer, self.scene.clock.now())
        self.scene.change(replace(self.scene.invoice, attempts=(attempt,)))

    @precondition(lambda self: self.last in OPEN)
    @rule(code=codes)
    def charge_fails(self, code: str) -> None:
        self.scene.end_charge(PaymentStatus.FAILED, code)

    @precondition(lambda self: self.last in OPEN and self.scene.invoice.is_open)
    @rule()
    def charge_succeeds(self) -> None:
        self.scene.end_charge(PaymentStatus.SUCCEEDED)
        self.scene.pay(str(self.scene.invoice.amount_open))

    @precondition(lambda self: self.scene.invoice.is_open)
    @rule(cents=st.integers(min_value=1, max_value=11900))
    def some_money_comes_by_bank(self, cents: int) -> None:
        self.scene.pay(str(min(self.scene.invoice.amount_open, Decimal(cents).scaleb(-2))))

    @precondition(lambda self: not self.scene.invoice.is_open)
    @rule()
    def the_bank_takes_it_back(self) -> None:
        self.scene.change(replace(self.scene.invoice, status="finalized", amount_open=Decimal("119.00")))

    @rule()
    def a_method_is_saved(self) -> None:
        self.methods += 1
        self.scene.change(replace(self.scene.invoice, method_saved_at=self.scene.clock.now()))

    @rule()
    def methods_are_removed(self) -> None:
        self.scene.change(replace(self.scene.invoice, method_saved_at=None))

    @rule()
    def pause_or_resume(self) -> None:
        self.scene.book.paused ^= {"acme"}

    @invariant()
    def retries_are_bounded(self) -> None:
        assert len(self.scene.provider.charged) <= 3 + self.methods

    @invariant()
    def an_account_is_suspended_and_restored_in_turn(self) -> None:
        events = [event for _, event in self.scene.book.events]
        assert events == ["account.suspended", "account.restored"] * (len(events) // 2) + events[len(events) & ~1 :]
        assert all(event == "account.suspended" for event in events[::2])
        shut_out = self.scene.book.stages.get("acme", Stage.CURRENT).is_shut_out
        assert shut_out == (len(events) % 2 == 1)

    @invariant()
    def history_is_a_chain(self) -> None:
        stage = Stage.CURRENT
        for _, before, after, when in self.scene.book.history:
            assert before is stage
            assert after is not before
            assert when >= ISSUED
            stage = after
        assert stage is self.scene.book.stages.get("acme", Stage.CURRENT)
        assert SEVERITY[stage] >= 0

    @invariant()
    def every_mail_has_its_step(self) -> None:
        steps = self.scene.book.steps.get("inv_1", {})
        names = [name for name, _, _ in self.scene.book.mails]
        assert len(set(names)) == len(names)
        assert set(names) == {name for name in steps if name.partition("-")[0] not in {"retry", "collection"}}


TestDunning = Dunning.TestCase
TestDunning.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
