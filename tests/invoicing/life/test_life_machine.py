"""Whatever is done in whatever order: the documents add up to what is owed, and the books agree with themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.errors import ConflictError, InvalidInputError
from invoicing.domain.invoice import DocumentKind, Origin
from invoicing.domain.standing import Standing
from invoicing.issue_one_time import OneTimeItem
from invoicing.terms import Terms
from rating.domain.credit import CreditKind
from rating.domain.timeline import ChangeKind
from tests.invoicing.life.stage import ZERO, Stage
from tests.invoicing.scene import TERMS, local
from tests.invoicing.story import COUPON, LARGE, SMALL
from tests.invoicing.tax.taxing import BERLIN, tables

pytestmark = pytest.mark.slow

T = TypeVar("T")
MONTHS = ("2026-10", "2026-11")
CENTS = st.integers(1, 8_000).map(lambda cents: Decimal(cents).scaleb(-2))


class LifeOfInvoices(RuleBasedStateMachine):
    """One tenant, two months, and everybody who may change what its documents say."""

    terms: Terms = TERMS

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(self.terms)
        self.minute = 0
        self.adjusted = ZERO
        self.late_coupon = False

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Let a minute pass, and do it."""
        self.minute += 1
        self.stage.clock.travel_to(local("2026-12-02T00:00", "UTC"))
        self.stage.clock.advance(timedelta(minutes=self.minute))
        return asyncio.run(call)

    @initialize(paid=CENTS, promised=CENTS)
    def begin(self, paid: Decimal, promised: Decimal) -> None:
        self.stage.subscribe(SMALL, LARGE)
        asyncio.run(self.stage.grant(str(paid), "2026-10-01"))
        asyncio.run(self.stage.grant(str(promised), "2026-10-01", kind=CreditKind.PROMOTIONAL))

    @rule(month=st.sampled_from(MONTHS), requests=st.integers(0, 900))
    def usage_is_known_otherwise(self, month: str, requests: int) -> None:
        hours = self.stage.usage.hours.setdefault("acme", [])
        self.stage.usage.hours["acme"] = [row for row in hours if f"{row.hour:%Y-%m}" != month]
        self.stage.used("api_requests", requests, f"{month}-10T10:00")

    @rule(day=st.integers(1, 30), large=st.booleans())
    def plan_is_changed_back_then(self, day: int, large: bool) -> None:
        put_down = f"2026-12-02T{self.minute // 60:02}:{self.minute % 60:02}"
        wanted = LARGE if large else SMALL
        when = f"2026-10-{day:02}T00:00"
        payload = {"plan_id": wanted.plan_id, "plan_version": 1, "overrides": {}}
        self.stage.change(ChangeKind.PLAN_CHANGED, when, put_down=put_down, **payload)

    @precondition(lambda self: not self.late_coupon)
    @rule()
    def a_coupon_is_redeemed(self) -> None:
        self.late_coupon = True
        self.stage.redeem(COUPON, "2026-10-01")

    @rule(months=st.permutations(MONTHS))
    def the_months_are_billed(self, months: list[str]) -> None:
        for month in months:
            self.run(self.stage.bill(period=month))
        for month in months:
            assert self.run(self.stage.bill(period=month)) == [], "again: nothing new"

    @rule(part=st.sampled_from(["1", "0.5", "0.01"]), data=st.data())
    def an_invoice_is_paid(self, part: str, data: st.DataObject) -> None:
        if (one := self.one_of(data, "finalized", "overdue", "uncollectible")) and one.amount_open:
            amount = (one.amount_open * Decimal(part)).quantize(Decimal("0.01"))
            if amount:
                self.stage.pay(one, str(amount))

    @rule(data=st.data())
    def a_payment_begins(self, data: st.DataObject) -> None:
        if (one := self.one_of(data, "finalized")) and one.amount_open:
            self.stage.fly(one)

    @rule(amount=CENTS, data=st.data())
    def something_is_given_back(self, amount: Decimal, data: st.DataObject) -> None:
        if one := self.one_of(data, "finalized", "paid", "uncollectible"):
            self.credit(one, str(amount))

    @rule(position=st.integers(1, 3), data=st.data())
    def a_line_is_given_back(self, position: int, data: st.DataObject) -> None:
        if one := self.one_of(data, "finalized", "paid"):
            self.credit(one, None, **{f"line_{position}": None})

    @rule(data=st.data())
    def an_invoice_is_voided(self, data: st.DataObject) -> None:
        if one := self.one_of(data, "finalized", "paid"):
            try:
                self.run(self.stage.void(one))
            except ConflictError:
                return
            assert self.run(self.stage.void(one)).status == "void"

    @rule(data=st.data())
    def an_invoice_is_written_off(self, data: st.DataObject) -> None:
        if one := self.one_of(data, "finalized"):
            try:
                self.run(self.stage.write_off(one))
            except ConflictError:
                return

    @rule(data=st.data())
    def an_invoice_is_reissued(self, data: st.DataObject) -> None:
        if one := self.one_of(data, "finalized", "paid", "uncollectible"):
            try:
                documents = self.run(self.stage.reissue(one))
            except ConflictError:
                return
            if documents:
                assert self.run(self.stage.reissue(one)) == documents, "again: the same documents"

    @rule(key=st.sampled_from("ab"), cents=CENTS)
    def items_are_sold_once(self, key: str, cents: Decimal) -> None:
        try:
            first = self.run(self.stage.one_time(OneTimeItem("Setup", cents), key=key))
        except ConflictError:
            return
        assert self.run(self.stage.one_time(OneTimeItem("Setup", cents), key=key)).invoice_id == first.invoice_id

    @invariant()
    def the_books_agree(self) -> None:
        if self.stage.books.state.buyers:
            assert self.stage.parked is None
            self.stage.check_books()
            asyncio.run(self.stage.check_ledger())

    def teardown(self) -> None:
        """Bill all once more: then the documents that nobody gave back by hand are what is owed now."""
        if not self.stage.books.state.buyers:
            return
        self.the_months_are_billed(list(MONTHS))
        self.the_books_agree()
        state = self.stage.books.state
        by_hand = [one for one in state.issued.counting() if one.origin is Origin.MANUAL]
        if not by_hand:
            months = sum(
                (one.draft.subtotal for one in state.issued.counting() if one.origin is not Origin.ONE_TIME), ZERO
            )
            assert months == asyncio.run(self.stage.owed("2026-10-15", "2026-11-15"))
        assert self.stage.total_of_documents() >= 0

    def one_of(self, data: st.DataObject, *statuses: str) -> Standing | None:
        found = [
            one
            for one in self.stage.books.state.issued.standings.values()
            if one.kind is DocumentKind.INVOICE and one.status in statuses
        ]
        return data.draw(st.sampled_from(found)) if found else None

    def credit(self, standing: Standing, amount: str | None, **lines: str | None) -> None:
        key = f"machine-{self.minute}"
        try:
            note = self.run(self.stage.credit(standing, amount, key=key, **lines))
        except (InvalidInputError, ConflictError):
            return
        except Exception as error:
            if "no line" in str(error):
                return
            raise
        assert self.run(self.stage.credit(standing, amount, key=key, **lines)) == note, "again: the same note"


class LifeOfTaxedInvoices(LifeOfInvoices):
    """The same with 19 % of German VAT on everything."""

    terms = replace(TERMS, seller=replace(TERMS.seller, tax=replace(BERLIN, currency="USD")), tables=tables())


LifeOfTaxedInvoices.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestLifeOfTaxedInvoices = LifeOfTaxedInvoices.TestCase
LifeOfInvoices.TestCase.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
TestLifeOfInvoices = LifeOfInvoices.TestCase
