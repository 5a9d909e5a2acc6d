"""Stories of unpaid invoices, day by day, with the sums; each ends with "look again, nothing new"."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.calendar import Calendar
from core.clock import ManualClock
from core.errors import UnavailableError
from payments.domain.payment import Payment, PaymentStatus
from payments.dunning.domain.case import Stage, UnpaidInvoice
from payments.dunning.ports import HELD_FOR
from payments.dunning.read_schedules import load_schedules
from payments.dunning.run_dunning import run_dunning
from tests.payments.dunning.memory import MemoryDunning, Provider, attempt_of

D = Decimal
SCHEDULES = load_schedules(None)
FAILED, PROCESSING = PaymentStatus.FAILED, PaymentStatus.PROCESSING
ISSUED = datetime(2026, 10, 20, 10, 0, tzinfo=UTC)
DUE = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)


def at(day: str, hour: int = 12) -> datetime:
    """An instant of 2026, such as `11-05`."""
    return datetime.fromisoformat(f"2026-{day}T{hour:02}:00:00+00:00")


@dataclass
class Scene:
    """One invoice of 119.00 EUR, issued on 20 October, due on 4 November; looked at every three hours."""

    book: MemoryDunning = field(default_factory=MemoryDunning)
    clock: ManualClock = field(default_factory=lambda: ManualClock(ISSUED))
    provider: Any = None

    def __post_init__(self) -> None:
        self.provider = Provider(self.book, ISSUED)
        self.change(
            UnpaidInvoice("inv_1", "MB-2026-000001", "acme", "lite", "finalized", "EUR", D("119.00"), ISSUED, DUE,
                          Calendar(), (), ISSUED - timedelta(days=99))
        )  # fmt: skip

    @property
    def invoice(self) -> UnpaidInvoice:
        return self.book.invoices["inv_1"]

    def change(self, invoice: UnpaidInvoice) -> None:
        self.book.invoices[invoice.invoice_id] = invoice

    def decline(self, code: str) -> None:
        """The first charge ends without money."""
        attempt = attempt_of(self.invoice, FAILED, code, self.clock.now())
        self.change(replace(self.invoice, attempts=(*self.invoice.attempts, attempt)))

    def end_charge(self, status: PaymentStatus, code: str = "") -> None:
        """The charge that is under way ends."""
        *before, last = self.invoice.attempts
        ended = replace(last, status=status, code=code or None, changed_at=self.clock.now())
        self.change(replace(self.invoice, attempts=(*before, ended)))

    def pay(self, amount: str) -> None:
        left = self.invoice.amount_open - D(amount)
        self.change(replace(self.invoice, amount_open=left, status="paid" if not left else self.invoice.status))

    async def live_until(self, end: datetime) -> None:
        while self.clock.now() < end:
            self.clock.travel_to(min(end, self.clock.now() + timedelta(hours=3)))
            await self.look()
        again = self.record()
        await self.look()
        assert self.record() == again, "look again, nothing new"

    async def look(self) -> None:
        self.provider.now = self.clock.now()
        await run_dunning(book=self.book, charge_again=self.provider, schedules=SCHEDULES, clock=self.clock)

    async def nothing_new(self) -> None:
        """Look twice more at the same moment, and hold that nothing was done, told or charged."""
        before = self.record()
        await self.look()
        await self.look()
        assert self.record() == before

    def record(self) -> Any:
        return self.steps(), len(self.book.mails), list(self.provider.charged), list(self.book.history)

    def steps(self) -> list[str]:
        """What was done: day, step, and what came of a retry."""
        rows = sorted(self.book.steps.get("inv_1", {}).items(), key=lambda one: one[1].done_at)
        return [
            f"{one.done_at:%m-%d} {name}" + ("" if one.outcome == "done" else f" {one.outcome}") for name, one in rows
        ]

    def stages(self) -> list[str]:
        return [f"{when:%m-%d} {stage.value}" for _, _, stage, when in self.book.history]


@pytest.mark.story
async def test_two_soft_declines_and_then_the_card_works() -> None:
    """Declined, retried twice, then paid; owed 119.00, asked for until it came."""
    scene = Scene()
    scene.decline("insufficient_funds")
    scene.provider.answers = [(FAILED, "insufficient_funds"), (PROCESSING, "")]
    await scene.live_until(at("10-28"))
    assert scene.steps() == ["10-20 payment_failed-1", "10-23 retry-1 failed", "10-27 retry-2 processing"]
    # 2 x 119.00 asked for, of which the second comes.
    assert [amount for _, amount in scene.provider.charged] == [D("119.00"), D("119.00")]
    scene.end_charge(PaymentStatus.SUCCEEDED)
    scene.pay("119.00")
    await scene.live_until(at("12-31"))
    assert len(scene.steps()) == 3, "it is over"
    assert scene.stages() == ["10-20 grace", "10-28 current"]
    assert scene.book.events == []
    (step, mail, _) = scene.book.mails[0]
    assert (step, mail.amount_open, mail.next_on) == ("payment_failed-1", "119.00", "2026-10-23")
    await scene.nothing_new()


@pytest.mark.story
async def test_a_hard_decline_is_not_tried_again_and_ends_in_suspension() -> None:
    """A stolen card, reminders, a suspension, another card; owed 119.00, charged once."""
    scene = Scene()
    scene.decline("stolen_card")
    await scene.live_until(at("11-30"))
    assert scene.steps() == [
        "10-20 payment_failed-1",
        "10-23 retry-1 hard_decline",
        "10-27 retry-2 hard_decline",
        "11-03 retry-3 hard_decline",
        "11-05 reminder-1",
        "11-12 reminder-2",
        "11-19 final_notice-1",
        "11-26 suspension-1",
    ]
    assert scene.provider.charged == []
    assert scene.book.mails[0][1].next_on == "", "nothing is promised that will not be tried"
    assert scene.book.mails[-2][1].next_on == "2026-11-26", "the final notice names the day"
    assert scene.stages() == ["10-20 grace", "11-12 past_due", "11-26 suspended"]
    # Another card is saved: charged at once, the whole 119.00.
    scene.change(replace(scene.invoice, method_saved_at=scene.clock.now()))
    scene.provider.answers = [(PROCESSING, "")]
    await scene.live_until(at("12-01"))
    assert scene.provider.charged == [(scene.invoice.attempts[1].payment_id, D("119.00"))]
    scene.pay("119.00")
    scene.end_charge(PaymentStatus.SUCCEEDED)
    await scene.live_until(at("12-31"))
    assert scene.book.events == [("acme", "account.suspended"), ("acme", "account.restored")]
    assert scene.stages()[-1] == "12-01 current"
    await scene.nothing_new()


@pytest.mark.story
async def test_a_payer_who_never_authenticates_burns_no_retry() -> None:
    """3-D Secure is abandoned twice; owed 119.00, and no retry is lost."""
    scene = Scene()
    action = attempt_of(scene.invoice, PaymentStatus.REQUIRES_ACTION, "", ISSUED)
    scene.change(replace(scene.invoice, attempts=(action,)))
    await scene.live_until(at("10-23", 9))
    assert scene.steps() == [], "the payer is at the bank's page"
    assert scene.stages() == []
    scene.end_charge(PaymentStatus.CANCELED, "authentication_abandoned")
    scene.provider.answers = [(PaymentStatus.REQUIRES_ACTION, "")]
    await scene.live_until(at("10-29"))
    # Three days after it was given up the payer is asked once more, and everything waits again.
    assert scene.steps() == ["10-23 payment_failed-1", "10-26 retry-1 requires_action"]
    scene.end_charge(PaymentStatus.CANCELED, "authentication_abandoned")
    await scene.live_until(at("11-07"))
    # The second retry was for 30 October, the third for 6 November: both are still there.
    assert scene.steps()[2:] == ["10-30 retry-2 failed", "11-05 reminder-1", "11-06 retry-3 failed"]
    assert [amount for _, amount in scene.provider.charged] == [D("119.00")] * 3
    await scene.nothing_new()


@pytest.mark.story
async def test_who_pays_by_transfer_is_reminded_and_nothing_else() -> None:
    """A transfer that never comes; owed 119.00, asked for four times."""
    scene = Scene()
    scene.change(replace(scene.invoice, tier="enterprise", method_saved_at=None))
    await scene.live_until(datetime(2027, 2, 1, tzinfo=UTC))
    assert scene.steps() == ["11-01 upcoming-1", "11-05 reminder-1", "11-14 reminder-2", "11-24 final_notice-1"]
    assert {mail.reference for _, mail, _ in scene.book.mails} == {"RF21 MB20 2600 0001"}
    assert scene.stages() == ["11-05 grace", "11-12 past_due"]
    assert (scene.provider.charged, scene.book.events) == ([], [])
    await scene.nothing_new()


@pytest.mark.story
async def test_a_part_stops_nothing_but_is_not_asked_for_again() -> None:
    """50.00 come by transfer between retries; owed 119.00, then 69.00."""
    scene = Scene()
    scene.decline("insufficient_funds")
    await scene.live_until(at("10-21"))
    scene.pay("50.00")
    await scene.live_until(at("11-20"))
    # 119.00 - 50.00 came by transfer
    assert [amount for _, amount in scene.provider.charged] == [D("69.00")] * 3
    asked = [(name, mail.amount_open) for name, mail, _ in scene.book.mails]
    assert asked == [
        ("payment_failed-1", "119.00"),
        ("reminder-1", "69.00"),
        ("reminder-2", "69.00"),
        ("final_notice-1", "69.00"),
    ]
    scene.pay("69.00")
    await scene.live_until(at("12-31"))
    assert scene.stages()[-1] == "11-20 current"
    await scene.nothing_new()


@pytest.mark.parametrize(("hour", "events"), [(7, []), (12, ["account.suspended", "account.restored"])])
@pytest.mark.story
async def test_paid_on_the_day_of_the_suspension(hour: int, events: list[str]) -> None:
    """Paid before or after the hour of the suspension; owed 119.00, restored if it was suspended."""
    scene = Scene()
    scene.decline("stolen_card")
    await scene.live_until(at("11-26", hour))  # suspension is due at 09:00
    scene.pay("119.00")
    await scene.live_until(at("12-31"))
    assert [event for _, event in scene.book.events] == events
    assert scene.book.stages["acme"] is Stage.CURRENT
    await scene.nothing_new()


@pytest.mark.story
async def test_a_chargeback_after_the_payment_starts_nothing() -> None:
    """Paid, then charged back; owed nothing, nobody is reminded."""
    scene = Scene()
    scene.pay("119.00")  # the invoice stays paid, whatever the bank says later (invoicing/record_money_back.py)
    await scene.live_until(at("12-31"))
    assert (scene.steps(), scene.stages(), scene.book.mails) == ([], [], [])
    await scene.nothing_new()


@pytest.mark.story
async def test_a_transfer_that_was_taken_back_goes_on_where_it_was() -> None:
    """A transfer is taken back; owed 119.00 again, reminders go on."""
    scene = Scene()
    scene.change(replace(scene.invoice, method_saved_at=None))
    await scene.live_until(at("11-06"))
    scene.pay("119.00")
    await scene.live_until(at("11-12"))
    scene.change(replace(scene.invoice, status="finalized", amount_open=D("119.00")))
    await scene.live_until(at("11-30"))
    assert scene.steps() == ["11-01 upcoming-1", "11-05 reminder-1", "11-14 reminder-2", "11-24 final_notice-1"]
    assert scene.stages() == ["11-05 grace", "11-06 current", "11-12 past_due"]
    await scene.nothing_new()


@pytest.mark.story
async def test_what_was_paused_comes_later_by_as_much() -> None:
    """Dunning is paused for 18 days; owed 119.00, every step comes as much later."""
    scene = Scene()
    scene.decline("stolen_card")
    await scene.live_until(at("11-06"))
    scene.book.paused.add("acme")
    await scene.live_until(at("11-30"))
    assert scene.steps()[-1] == "11-05 reminder-1"
    scene.book.paused.clear()
    await scene.live_until(datetime(2027, 1, 1, tzinfo=UTC))
    # reminder-2 was planned for 12 November and came on the 30th, 18 days late: 19 + 18 and 26 + 18 November
    assert scene.steps()[5:] == ["11-30 reminder-2", "12-07 final_notice-1", "12-14 suspension-1"]
    await scene.nothing_new()


@pytest.mark.story
async def test_two_invoices_make_the_account_as_bad_as_the_worse() -> None:
    """Two invoices, the worse one is paid; owed 119.00 of the other, restored but in grace."""
    scene = Scene()
    scene.decline("stolen_card")
    second = replace(scene.invoice, invoice_id="inv_2", number="MB-2026-000002", due_at=DUE + timedelta(days=20))
    scene.change(second)
    await scene.live_until(at("11-27"))
    scene.pay("119.00")
    await scene.live_until(at("12-01"))
    # The first is paid, the second became overdue on the 25th: restored, but not current.
    assert scene.book.events == [("acme", "account.suspended"), ("acme", "account.restored")]
    assert scene.book.stages["acme"] is Stage.GRACE
    await scene.nothing_new()


@pytest.mark.story
async def test_a_retry_whose_outcome_is_unknown_is_asked_for_again_and_charged_once() -> None:
    """A retry's answer is lost; owed 119.00, charged once."""
    scene = Scene()
    scene.decline("insufficient_funds")
    inner, down = scene.provider, [True]

    class Flaky:
        now = ISSUED
        charged = inner.charged

        async def __call__(self, invoice: UnpaidInvoice, retry_of: str) -> Payment | None:
            inner.now = scene.clock.now()
            payment: Payment | None = await inner(invoice, retry_of)  # it got through, its answer did not
            if down[0]:
                raise UnavailableError
            return payment

    scene.provider, inner.answers = Flaky(), [(PROCESSING, "")]
    scene.clock.travel_to(at("10-20"))
    await scene.look()
    scene.clock.travel_to(at("10-23"))
    await scene.look()
    assert scene.steps() == ["10-20 payment_failed-1", "10-23 retry-1 started"]
    down[0] = False
    await scene.look()
    assert scene.steps()[-1] == "10-23 retry-1 started", "whoever began it may still be at it"
    scene.clock.advance(HELD_FOR)
    await scene.look()
    assert scene.steps()[-1] == "10-23 retry-1 processing"
    assert len(inner.charged) == 1
    await scene.nothing_new()
