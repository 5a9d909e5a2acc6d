"""What Prometheus is told of the payment desk: counted in the real PostgreSQL, and gone when it waits no more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from payments.adapters.postgres_figures import DeskFigures, read_figures
from payments.report_figures import report_figures
from runtime.postgres import Pool
from tests.payments.desk import Desk
from tests.standins.process import Standins


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_what_waits_no_more_is_shown_no_more() -> None:
    some = DeskFigures(
        {("stripe", "pending"): 2}, {"stripe": 1}, 3, 4, {"suspended": 5}, {"EUR": (6, 7.5), "JPY": (1, 900.0)}
    )
    report_figures(some)
    assert shown("meterbook_payments_open", provider="stripe", status="pending") == 2
    assert shown("meterbook_payment_outcomes_unknown", provider="stripe") == 1
    assert (shown("meterbook_refunds_owed"), shown("meterbook_disputes_open")) == (3, 4)
    assert shown("meterbook_dunning_accounts", stage="suspended") == 5
    assert shown("meterbook_bank_entries_open", currency="EUR") == 6
    assert shown("meterbook_bank_amount_open", currency="JPY") == 900
    report_figures(DeskFigures({}, {}, 0, 0, {}, {"EUR": (1, 2.0)}))
    assert shown("meterbook_payments_open", provider="stripe", status="pending") is None
    assert (shown("meterbook_refunds_owed"), shown("meterbook_bank_entries_open", currency="JPY")) == (0, None)


@pytest.mark.integration
async def test_the_figures_are_what_the_books_say(desk: Desk, pool: Pool, standins: Standins) -> None:
    async def rows(query: str, *arguments: Any) -> None:
        async with pool.connection() as connection:
            await connection.execute(query.encode(), arguments)

    def differs(after: DeskFigures, before: DeskFigures, provider: str, status: str) -> int:
        key = (provider, status)
        return after.open_payments.get(key, 0) - before.open_payments.get(key, 0)

    before = await read_figures(pool, desk.clock.now())
    # What other tests of the folder left open is unknown as well by then.
    later = await read_figures(pool, desk.clock.now() + timedelta(minutes=11))
    tenant = await desk.books.add_tenant("pm_card_visa")
    standins.fail_stripe("cut_after", method="POST", path="/v1/payment_intents")
    asked = await desk.books.add_invoice(tenant)
    unknown = await desk.charge(asked)
    assert unknown is None, "the answer was cut off"
    await rows("INSERT INTO dunning_accounts (tenant_id, stage, since) VALUES (%s, 'suspended', now())", tenant)
    young = await read_figures(pool, desk.clock.now())
    assert differs(young, before, "stripe", "pending") == 1
    assert young.unknown_outcomes == before.unknown_outcomes, "the answer may still come"
    assert young.accounts["suspended"] == before.accounts.get("suspended", 0) + 1
    desk.clock.advance(timedelta(minutes=11))
    old = await read_figures(pool, desk.clock.now())
    assert old.unknown_outcomes["stripe"] == later.unknown_outcomes.get("stripe", 0) + 1
    await desk.janitor()
    await desk.catch_up()
    ended = await read_figures(pool, desk.clock.now())
    assert ended.unknown_outcomes.get("stripe", 0) <= later.unknown_outcomes.get("stripe", 0)
    payment = await desk.settled()
    standins.open_dispute(payment.provider_reference or "")
    await desk.catch_up()
    assert (await read_figures(pool, desk.clock.now())).open_disputes == before.open_disputes + 1
