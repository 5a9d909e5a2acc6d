"""The rules of dunning: declines, schedules and their lateness, stages, what a schedule file may say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import Calendar
from core.clock import ManualClock
from core.errors import InvalidInputError
from payments.domain.payment import PaymentStatus
from payments.dunning.build_mail import build_mail, check_texts
from payments.dunning.domain.case import Attempt, Stage, UnpaidInvoice, judge, may_retry, worst
from payments.dunning.domain.decline import (
    AUTHENTICATION,
    HARD_DECLINES,
    SOFT_DECLINES,
    UNKNOWN_TRIES_MAX,
    Lane,
    decline_code,
    is_unknown,
    lane_of,
)
from payments.dunning.domain.reminder import Reminder
from payments.dunning.domain.schedule import Anchor, DoneStep, Schedule, Step, StepKind, at_hour, plan_steps
from payments.dunning.ports import Answer, WaitingMail
from payments.dunning.read_schedules import load_schedules, read_schedules
from payments.dunning.send_reminders import send_next_reminder

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
SCHEDULES = load_schedules(None)


@pytest.mark.parametrize(
    ("code", "reason", "lane"),
    [
        ("card_declined", "Your card has insufficient funds. (insufficient_funds)", Lane.SOFT),
        ("card_declined", "Your card was declined. (generic_decline)", Lane.SOFT),
        ("card_declined", "Your card was declined. (do_not_honor)", Lane.SOFT),
        ("card_declined", "Your card was declined. (lost_card)", Lane.HARD),
        ("card_declined", "Your card was declined. (stolen_card)", Lane.HARD),
        ("expired_card", "Your card has expired.", Lane.HARD),
        ("account_closed", "The bank account has been closed.", Lane.HARD),
        ("card_declined", "Your card's security code is incorrect. (incorrect_cvc)", Lane.HARD),
        ("card_declined", "Your card does not support this. (new_account_information_available)", Lane.HARD),
        ("card_declined", "Your card was declined. (security_violation)", Lane.SOFT),
        ("payment_method_provider_decline", "Retries won't succeed. (invalid_billing_agreement)", Lane.HARD),
        ("payment_intent_payment_attempt_failed", "Revoked. (authorization_revoked)", Lane.HARD),
        ("insufficient_funds", "The account has no funds.", Lane.SOFT),
        ("instrument_declined", "422 UNPROCESSABLE_ENTITY INSTRUMENT_DECLINED", Lane.SOFT),
        ("payer_cannot_pay", "422 UNPROCESSABLE_ENTITY PAYER_CANNOT_PAY", Lane.HARD),
        ("authentication_required", "needs authentication", Lane.AUTHENTICATION),
        ("authentication_abandoned", "the payer did not authenticate in time", Lane.AUTHENTICATION),
        ("no_payment_method", "", Lane.NO_METHOD),
        ("provider_error", "500", Lane.SOFT),
        ("never_heard_of", None, Lane.SOFT),
        (None, None, Lane.SOFT),
    ],
)
def test_a_decline_has_its_lane(code: str | None, reason: str | None, lane: Lane) -> None:
    assert lane_of(code, reason) is lane


def test_the_issuers_code_is_the_one_in_brackets_at_the_end() -> None:
    assert decline_code("card_declined", "Declined (by the bank). (lost_card)") == "lost_card"
    assert decline_code("card_declined", "Declined (lost_card) today") == "card_declined"


def test_no_code_is_of_two_lanes() -> None:
    assert not HARD_DECLINES & SOFT_DECLINES
    assert not AUTHENTICATION & (HARD_DECLINES | SOFT_DECLINES)


@given(st.from_regex(r"[a-z_]{1,40}", fullmatch=True), st.integers(min_value=1, max_value=9))
def test_what_no_page_names_is_soft_and_tried_a_bounded_number_of_times(code: str, tries: int) -> None:
    if code in HARD_DECLINES | SOFT_DECLINES | AUTHENTICATION | {"no_payment_method"}:
        assert not is_unknown(code, None)
        return
    charged = invoice(attempts=tuple(failed(code, number=number) for number in range(1, tries + 1)))
    assert lane_of(code, None) is Lane.SOFT
    assert may_retry(charged) == ("" if tries < UNKNOWN_TRIES_MAX else "unknown_decline")
    known = replace(charged, attempts=(*charged.attempts[:-1], failed("insufficient_funds", number=tries)))
    assert may_retry(known) == "", "what is known to be soft is the schedule's affair"
    assert may_retry(replace(charged, method_saved_at=NOW + timedelta(hours=1))) == "", "another method is another try"


def test_steps_come_in_the_morning_of_the_tenants_day() -> None:
    berlin = Calendar("Europe/Berlin")
    # Due 23:30 UTC on the 4th is the 5th in Berlin; a day later 09:00 there is 08:00 UTC in winter.
    due = datetime(2026, 11, 4, 23, 30, tzinfo=UTC)
    assert at_hour(berlin, due, 1, 9) == datetime(2026, 11, 6, 8, 0, tzinfo=UTC)
    # The clocks go back on 25 October: 09:00 is 08:00 UTC from then on.
    assert at_hour(berlin, datetime(2026, 10, 24, 10, tzinfo=UTC), 0, 9) == datetime(2026, 10, 24, 10, tzinfo=UTC)
    assert at_hour(berlin, datetime(2026, 10, 24, 10, tzinfo=UTC), 1, 9) == datetime(2026, 10, 25, 8, tzinfo=UTC)
    # 02:00 does not exist in Berlin on 29 March: the clocks move at 01:00 UTC.
    assert at_hour(berlin, datetime(2026, 3, 28, 10, tzinfo=UTC), 1, 2) == datetime(2026, 3, 29, 1, tzinfo=UTC)


days = st.lists(st.integers(min_value=0, max_value=90), min_size=1, max_size=8, unique=True).map(sorted)


@given(days, st.lists(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=40)), min_size=8, max_size=8))
def test_late_steps_keep_their_distances_and_none_is_taken_twice(offsets: list[int], waits: list[timedelta]) -> None:
    steps = tuple(Step(f"reminder-{n}", StepKind.REMINDER, Anchor.DUE, offset) for n, offset in enumerate(offsets, 1))
    schedule, calendar, done = Schedule("test", steps, 7), Calendar(), list[DoneStep]()
    for wait in waits[: len(steps)]:
        (first, *_) = plan_steps(schedule, calendar=calendar, due_at=NOW, failed_at=None, done=done)
        at = first.due_at + wait
        if done:
            before = next(step for step in steps if step.name == done[-1].name)
            apart = timedelta(days=first.step.days - before.days - 1)
            assert first.due_at >= done[-1].done_at + apart - timedelta(days=1), "what came late moves what follows"
        done.append(DoneStep(first.step.name, first.due_at, at))
    assert [one.name for one in done] == [step.name for step in steps]
    assert plan_steps(schedule, calendar=calendar, due_at=NOW, failed_at=None, done=done) == []


def test_what_counts_from_a_failure_is_not_due_without_one() -> None:
    schedule = SCHEDULES.for_tier("lite", is_charged=True)
    planned = plan_steps(schedule, calendar=Calendar(), due_at=NOW, failed_at=None, done=[])
    assert {one.step.anchor for one in planned} == {Anchor.DUE}


def invoice(**changes: Any) -> UnpaidInvoice:
    facts: dict[str, Any] = {
        "invoice_id": "inv_1",
        "number": "MB-2026-000001",
        "tenant_id": "acme",
        "tier": "lite",
        "status": "finalized",
        "currency": "EUR",
        "amount_open": Decimal("119.00"),
        "issued_at": NOW - timedelta(days=15),
        "due_at": NOW,
        "calendar": Calendar(),
        "method_saved_at": NOW - timedelta(days=100),
    }
    return UnpaidInvoice(**{**facts, **changes})


def failed(code: str, at: datetime = NOW, number: int = 1, status: str = "failed") -> Attempt:
    return Attempt(f"pay_{number}", number, "stripe", PaymentStatus(status), code, None, at, at)


def test_stages_follow_the_calendar() -> None:
    # Due on the 4th: overdue from the 5th 00:00, past due seven days after that.
    for day, stage in ((4, Stage.CURRENT), (5, Stage.GRACE), (11, Stage.GRACE), (12, Stage.PAST_DUE)):
        now = datetime(2026, 11, day, tzinfo=UTC)
        assert judge(invoice(), SCHEDULES, [], now).stage is stage
    failing = invoice(attempts=(failed("insufficient_funds", NOW - timedelta(days=14)),))
    assert judge(failing, SCHEDULES, [], NOW - timedelta(days=13)).stage is Stage.GRACE
    shut = [DoneStep("suspension-1", NOW, NOW)]
    assert judge(invoice(), SCHEDULES, shut, NOW).stage is Stage.SUSPENDED
    gone = [*shut, DoneStep("collection-1", NOW, NOW)]
    assert judge(invoice(), SCHEDULES, gone, NOW).stage is Stage.COLLECTED
    assert worst([Stage.GRACE, Stage.SUSPENDED, Stage.PAST_DUE]) is Stage.SUSPENDED
    assert worst([]) is Stage.CURRENT


@pytest.mark.parametrize("change", [{"status": "paid"}, {"status": "void"}, {"status": "uncollectible"},
                                    {"amount_open": Decimal(0)}])  # fmt: skip
def test_nothing_is_done_about_what_is_not_open(change: dict[str, Any]) -> None:
    case = judge(invoice(**change), SCHEDULES, [], NOW + timedelta(days=400))
    assert (case.stage, case.step, case.look_at) == (Stage.CURRENT, None, None)


@pytest.mark.parametrize("status", ["pending", "processing", "requires_action"])
def test_while_money_may_be_on_its_way_nobody_is_told_off(status: str) -> None:
    case = judge(invoice(attempts=(failed("", status=status),)), SCHEDULES, [], NOW + timedelta(days=30))
    assert (case.step, case.waits_for, case.stage) == (None, "payment_under_way", Stage.PAST_DUE)
    assert case.upcoming, "it is only put off"


def test_a_hard_decline_waits_for_another_method() -> None:
    stopped = invoice(attempts=(failed("lost_card"),))
    assert may_retry(stopped) == "hard_decline"
    assert may_retry(invoice(attempts=(failed("lost_card"),), method_saved_at=None)) == "no_method"
    assert may_retry(invoice(attempts=(failed("insufficient_funds"),))) == ""
    assert may_retry(invoice(attempts=(failed("authentication_abandoned", status="canceled"),))) == ""
    saved = invoice(attempts=(failed("lost_card"),), method_saved_at=NOW + timedelta(hours=1))
    assert may_retry(saved) == ""
    case = judge(saved, SCHEDULES, [], NOW + timedelta(hours=1))
    assert case.step is not None
    assert case.step.step.name == "retry-method-1", "a new method is charged at once"
    again = judge(saved, SCHEDULES, [DoneStep("retry-method-1", NOW, NOW)], NOW + timedelta(hours=1))
    assert again.step is None or again.step.step.name != "retry-method-1"


def test_a_transfer_has_due_dates_and_reminders_only() -> None:
    by_wire = invoice(method_saved_at=None)
    kinds = {step.kind for step in SCHEDULES.for_tier("enterprise", is_charged=by_wire.is_charged).steps}
    assert kinds == {StepKind.UPCOMING, StepKind.REMINDER, StepKind.FINAL_NOTICE}


GOOD: dict[str, Any] = {
    "charged": {"default": [{"step": "reminder", "days": 1}, {"step": "suspension", "days": 9}]},
    "transferred": {"default": [{"step": "upcoming", "days": -3}]},
}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"charged": None}, "missing_default"),
        ({"transferred": {"lite": []}}, "missing_default"),
        ({"hour": 24}, "invalid_hour"),
        ({"grace_days": -1}, "invalid_days"),
        ({"grace": 1}, "unknown_field"),
        ({"charged": {"default": "often"}}, "invalid_schedule"),
        ({"charged": {"default": [{"step": "threat", "days": 1}]}}, "invalid_step"),
        ({"charged": {"default": [{"step": "reminder"}]}}, "invalid_step"),
        ({"charged": {"default": [{"step": "reminder", "days": 1, "after": "lunch"}]}}, "invalid_step"),
        ({"charged": {"default": [{"step": "reminder", "days": -1}]}}, "invalid_days"),
        ({"charged": {"default": [{"step": "reminder", "days": "1"}]}}, "invalid_days"),
        ({"charged": {"default": [{"step": "reminder", "days": True}]}}, "invalid_days"),
        ({"charged": {"default": [{"step": "suspension", "days": 9}]}}, "suspension_unannounced"),
        ({"transferred": {"default": [{"step": "retry", "days": 1}]}}, "retry_by_transfer"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(change: dict[str, Any], code: str) -> None:
    assert read_schedules(GOOD).for_tier("lite", is_charged=True).grace_days == 7
    with pytest.raises(InvalidInputError) as refused:
        read_schedules({**GOOD, **change})
    assert code in {fault.code for fault in refused.value.faults}


def test_every_fault_is_told_at_once(tmp_path: Any) -> None:
    path = tmp_path / "schedules.yaml"
    path.write_text("hour: 99\ngrace_days: x\ncharged: {default: [{step: nap, days: 1}]}\ntransferred: {default: []}\n")
    with pytest.raises(InvalidInputError) as refused:
        load_schedules(path)
    assert [fault.code for fault in refused.value.faults] == ["invalid_hour", "invalid_days", "invalid_step"]
    with pytest.raises(InvalidInputError, match="unreadable_file"):
        load_schedules(tmp_path / "none.yaml")


# Mails


def reminder(**changes: str) -> Reminder:
    facts = {
        "kind": "final_notice", "language": "en", "name": "Acme & <Sons>", "email": "pay@acme.example",
        "invoice_id": "inv_1", "number": "MB-2026-000001", "amount_open": "1234.50", "currency": "EUR",
        "due_on": "2026-11-04", "next_on": "2026-11-26",
    }  # fmt: skip
    return Reminder(**{**facts, **changes})


def mail_of(**changes: str) -> EmailMessage:
    return build_mail(reminder(**changes), message_id="dun_x", sender="Meterbook <b@meter.example>", dated=NOW)


@pytest.mark.parametrize(
    ("language", "amount", "due", "next_day"),
    [
        ("en", "€1,234.50", "November 4, 2026", "suspended on November 26, 2026"),
        ("es", "1.234,50\xa0€", "4 de noviembre de 2026", "se suspenderá el 26 de noviembre de 2026"),
        ("pt", "1\xa0234,50\xa0€", "4 de novembro de 2026", "será suspensa em 26 de novembro de 2026"),
        ("de", "1.234,50\xa0€", "4. November 2026", "am 26. November 2026 gesperrt"),
    ],
)
def test_a_mail_says_the_same_in_text_and_html_in_the_tenants_language(
    language: str, amount: str, due: str, next_day: str
) -> None:
    mail = mail_of(language=language)
    parts = [part.get_content() for part in mail.iter_parts() if isinstance(part, EmailMessage)]
    assert len(parts) == 2
    for part in parts:
        flat = " ".join(part.replace("\xa0", " ").split())
        for said in (amount.replace("\xa0", " "), due, next_day, "MB-2026-000001"):
            assert said in flat
    assert (mail["Message-ID"], mail["Content-Language"]) == ("<dun_x@meter.example>", language)
    assert "Acme &amp; &lt;Sons&gt;" in parts[1]
    assert "{" not in parts[0]
    again = mail_of(language=language)
    assert [part.get_content() for part in again.iter_parts()] == parts  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["upcoming", "payment_failed", "reminder", "final_notice", "suspension"])
@pytest.mark.parametrize("language", ["en", "es", "pt", "de"])
@pytest.mark.parametrize(("next_on", "reference"), [("", ""), ("2026-11-26", ""), ("", "RF21 MB20 2600 0001")])
def test_every_mail_can_be_made(kind: str, language: str, next_on: str, reference: str) -> None:
    mail = mail_of(kind=kind, language=language, next_on=next_on, reference=reference)
    (text, _) = [part.get_content() for part in mail.iter_parts()]  # type: ignore[attr-defined]
    assert not set("{}") & set(text)
    assert (reference in text) is bool(reference) or not reference
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("email", ["pay@acme.example\nBcc: all@acme.example", "pay@acme.example\r\nX: y"])
async def test_an_address_that_no_header_can_hold_is_put_away(email: str) -> None:
    class Held:
        mail = WaitingMail("dun_x", "inv_1", reminder(email=email), 0, NOW, is_wanted=True)
        recorded: tuple[str, str] | None = None

        async def record(self, status: str, next_attempt_at: datetime, error: str, now: datetime) -> None:
            self.recorded = (status, error)

    class Queue:
        held = Held()

        @asynccontextmanager
        async def hold_due(self, now: datetime) -> AsyncIterator[Held]:
            yield self.held

    class Server:
        async def send(self, message: Any) -> tuple[Answer, str]:
            raise AssertionError("nothing is sent")

    queue = Queue()
    assert await send_next_reminder(queue=queue, server=Server(), sender="b@meter.example", clock=ManualClock(NOW))
    assert queue.held.recorded is not None
    assert queue.held.recorded[0] == "refused"


def test_every_language_has_every_text() -> None:
    check_texts()
