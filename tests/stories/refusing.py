"""Refusals in tests: the code they name, and that nothing was half done."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from core.errors import InvalidInputError, MeterbookError
from invoicing.domain.invoice import Invoice
from tests.stories.world import World


async def code_of(work: Awaitable[object]) -> str:
    """Return the code with which a piece of work is refused; anything but a typed refusal fails the test."""
    with pytest.raises(MeterbookError) as refused:
        await work
    error = refused.value
    return error.faults[0].code if isinstance(error, InvalidInputError) else error.code


async def one_open_and_one_paid(world: World) -> tuple[Invoice, Invoice]:
    """Bill October: 30.00 that Acme's card did not pay, and 30.00 that Bolt's did."""
    await world.tenant("acme", "small", pays="pm_card_chargeCustomerFail")
    await world.tenant("bolt", "small")
    opened = await world.bill_one("acme", "2026-10", "2026-11-02T09:00")
    paid = await world.bill_one("bolt", "2026-10", "2026-11-02T09:00")
    assert await world.invoice(opened.number) == ("finalized", "0.00", "30.00")
    assert await world.invoice(paid.number) == ("paid", "30.00", "0.00")
    return opened, paid
