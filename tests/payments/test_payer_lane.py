"""3-D Secure as a lane of its own: a link by e-mail, once; passed, refused, or abandoned by the clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from core.errors import UnavailableError
from payments.adapters.action_mail import ActionMail
from payments.adapters.stripe_provider import StripeProvider
from payments.ask_payers import give_up_waiting, tell_payers
from payments.domain.payment import Payment
from payments.ports import Payer, PayerAction
from tests.payments.conftest import Books
from tests.payments.desk import Desk
from tests.standins.process import Standins

pytestmark = pytest.mark.integration
THREE_DAYS = timedelta(hours=72)
CARD = "pm_card_authenticationRequired"


@pytest.fixture
async def lane(desk: Desk, standins: Standins) -> AsyncIterator[Lane]:
    provider = StripeProvider(
        standins.stripe_api_key, standins.stripe_url, return_url="https://shop.example/paid", timeout_seconds=5
    )
    desk.provider = provider
    yield Lane(desk, ActionMail(standins.smtp_url, sender="Meterbook <billing@meterbook.invalid>"))
    await provider.close()


class Lane:
    """A desk with a mail server beside it."""

    def __init__(self, desk: Desk, notice: ActionMail) -> None:
        self.desk, self.notice = desk, notice

    async def waiting(self, card: str = CARD) -> Payment:
        payment = await self.desk.charge(await self.desk.books.add_invoice(await self.desk.books.add_tenant(card)))
        assert payment is not None
        assert payment.status == "requires_action"
        return payment

    async def tell(self) -> int:
        desk = self.desk
        return await tell_payers(
            store=desk.store, payers=desk.store, provider=desk.provider, notice=self.notice, time_to_act=THREE_DAYS,
            clock=desk.clock,
        )  # fmt: skip

    async def give_up(self, later: timedelta) -> int:
        self.desk.clock.advance(later)
        return await give_up_waiting(store=self.desk.store, provider=self.desk.provider, clock=self.desk.clock)


def links(standins: Standins) -> list[str]:
    return [
        line for mail in standins.mails() for line in mail["text"].splitlines() if line.startswith("https://hooks.")
    ]


async def test_the_payer_gets_one_link_and_pays(lane: Lane, standins: Standins) -> None:
    payment = await lane.waiting()
    assert (await lane.tell(), await lane.tell()) == (1, 0)
    [link] = links(standins)
    assert (payment.provider_reference or "no reference") in link
    assert standins.ledger() == []
    standins.authenticate(payment.provider_reference or "")
    await lane.desk.catch_up()
    assert await lane.desk.steps(payment) == [
        "payment None>pending request",
        "payment pending>requires_action answer",
        "payment requires_action>succeeded webhook",
    ]
    assert await lane.desk.told(payment) == [("payment.settled", "125.40", "")]
    assert len(standins.ledger()) == 1
    assert await lane.give_up(THREE_DAYS * 2) == 0


async def test_an_abandoned_payment_is_canceled_there_and_here_and_dunning_is_told(
    lane: Lane, standins: Standins
) -> None:
    payment = await lane.waiting()
    await lane.tell()
    assert await lane.give_up(THREE_DAYS - timedelta(minutes=1)) == 0
    assert await lane.give_up(timedelta(minutes=2)) == 1
    ended = await lane.desk.payment(payment.payment_id)
    assert (ended.status, ended.failure_code) == ("canceled", "authentication_abandoned")
    assert await lane.desk.told(payment) == [("payment.failed", "125.40", "")]
    # Stripe's own event of the cancellation changes nothing any more, and a late try of the payer cannot pay.
    await lane.desk.catch_up()
    assert len(await lane.desk.history(payment)) == 3
    with pytest.raises(OSError, match="400"):
        standins.authenticate(payment.provider_reference or "")
    assert standins.ledger() == []


async def test_a_payer_who_pays_at_the_last_moment_has_paid(lane: Lane, standins: Standins) -> None:
    payment = await lane.waiting()
    await lane.tell()
    standins.authenticate(payment.provider_reference or "")
    # The webhook is still on its way when time is over: the cancellation is refused, and the money is seen.
    assert await lane.give_up(THREE_DAYS + timedelta(minutes=1)) == 1
    assert (await lane.desk.payment(payment.payment_id)).status == "succeeded"
    await lane.desk.catch_up()
    assert await lane.desk.told(payment) == [("payment.settled", "125.40", "")]


async def test_a_failed_authentication_fails_the_payment(lane: Lane, standins: Standins) -> None:
    payment = await lane.waiting()
    await lane.tell()
    standins.authenticate(payment.provider_reference or "", success=False)
    await lane.desk.catch_up()
    ended = await lane.desk.payment(payment.payment_id)
    assert (ended.status, ended.failure_code) == ("failed", "payment_intent_authentication_failure")


async def test_an_authenticated_card_without_funds_fails_with_its_decline(lane: Lane, standins: Standins) -> None:
    payment = await lane.waiting("pm_card_authenticationRequiredChargeDeclinedInsufficientFunds")
    await lane.tell()
    standins.authenticate(payment.provider_reference or "")
    await lane.desk.catch_up()
    assert (await lane.desk.payment(payment.payment_id)).failure_code == "card_declined"
    assert standins.ledger() == []


@pytest.mark.parametrize("broken", ["provider", "mail"])
async def test_an_outage_delays_the_link_and_sends_it_once(broken: str, lane: Lane, standins: Standins) -> None:
    payment = await lane.waiting()
    if broken == "mail":
        standins.fail_smtp(code=451)
    else:
        standins.fail_stripe("cut_after", method="POST", path="/v1/payment_intents/")
    assert await lane.tell() == 0
    assert await lane.tell() == 1
    [link] = links(standins)
    assert (payment.provider_reference or "no reference") in link


async def test_an_address_that_takes_no_mail_is_tried_once_and_the_clock_ends_it(
    lane: Lane, standins: Standins
) -> None:
    payment = await lane.waiting()
    standins.fail_smtp(code=550, stage="rcpt")
    assert [await lane.tell(), await lane.tell()] == [0, 0]
    assert standins.mails() == []
    assert await lane.give_up(THREE_DAYS + timedelta(minutes=1)) == 1
    assert (await lane.desk.payment(payment.payment_id)).failure_code == "authentication_abandoned"


async def test_without_a_return_address_nobody_is_sent_anywhere(
    books: Books, desk: Desk, provider: StripeProvider, standins: Standins
) -> None:
    desk.provider = provider
    lane = Lane(desk, ActionMail(standins.smtp_url, sender="billing@meterbook.invalid"))
    payment = await lane.waiting()
    assert await lane.tell() == 0
    assert standins.mails() == []
    # It does not wait for ever.
    assert await lane.give_up(timedelta(days=8)) == 1
    assert (await desk.payment(payment.payment_id)).status == "canceled"


async def test_a_mail_server_that_does_not_listen_is_an_outage() -> None:
    notice = ActionMail("smtp://127.0.0.1:9", sender="a@b.invalid", timeout_seconds=1)
    from tests.payments.test_refund_and_dispute_units import NOW, SETTLED

    action: Any = PayerAction("pay_1", "https://x.example", NOW)
    with pytest.raises(UnavailableError):
        await notice.send_action_link(Payer("acme", "Acme", "a@b.invalid"), SETTLED, action)
