"""Money by bank: what statements show is what `cash:wire` holds, and what found no home is `unallocated`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ledger.adapters.postgres import post
from ledger.adapters.postgres_audit import PostgresAudit
from ledger.check_ledger import check_ledger
from ledger.domain.postings import of_bank_receipt
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from tests.ledger.conftest import NOW
from tests.payments.bank.scene import Scene

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    async with create_pool(settings, max_size=4) as opened:
        yield opened


async def bank_faults(pool: Pool) -> list[str]:
    """Differences of the bank's accounts; this scene's invoices are rows without entries."""
    faults = (await check_ledger(PostgresAudit(pool))).faults
    return [fault for fault in faults if any(name in fault for name in ("cash:wire", "unallocated", "bank_fees"))]


async def test_every_way_that_bank_money_goes_is_in_the_figures(pool: Pool) -> None:
    scene = Scene(pool, datetime(2026, 11, 2, 9, tzinfo=UTC))
    tenant = await scene.tenant()
    whole, short, over = [await scene.invoice(tenant, amount) for amount in ("119.00", "1000.00", "50.00")]
    first, second, third, fourth = await scene.receive(
        scene.told("119.00", whole), scene.told("985.00", short), scene.told("60.00", over), scene.told("7.00", "lunch")
    )
    assert await bank_faults(pool) == []
    await scene.confirm(first, whole)
    await scene.confirm(second, short, fees_ours=True, tolerance="15")
    await scene.confirm(third, over, rest="credit")
    assert await bank_faults(pool) == []
    (back,) = await scene.receive(scene.told("-985.00", f"Rueckgabe {short}"))
    await scene.give_back(back, second)
    assert await bank_faults(pool) == []
    # 119.00 + 985.00 + 60.00 + 7.00 - 985.00 = 186.00 at the bank, of which 7.00 belong to nothing.
    balances = {
        account.name: net
        for (account, currency), net in (await PostgresAudit(pool).read()).balances.items()
        if account.tenant_id is None and currency == "EUR"
    }
    assert balances["cash:wire"] == Decimal("186.00")
    assert balances["unallocated"] == Decimal("-7.00")
    # A receipt that no statement shows is found out.
    async with pool.connection() as connection, connection.transaction():
        await post(connection, of_bank_receipt("no-such-entry", "EUR", amount=Decimal("1.00"), at=NOW), NOW)
    assert [fault.split(": ")[0] for fault in await bank_faults(pool)] == [
        "nobody's cash:wire",
        "nobody's unallocated",
    ]
    assert fourth
