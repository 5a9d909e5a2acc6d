"""What a suspended account may use, on PostgreSQL and Redis: nothing, wiped or not, until it has paid; then at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from core.live_quota import EPOCH_KEY
from core.messages import InvoiceFinalized, PaymentSettled
from core.meters import Meter, Registry
from core.period import format_instant
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.settle_invoice import settle_invoice
from quotas.desk import QuotaDesk, open_quota_desk
from quotas.domain.access import AccountPastDueError, AccountSuspendedError
from quotas.domain.reservation import HoldRequest
from runtime.postgres import Pool
from runtime.redis import connect_redis
from runtime.settings import Settings
from tests.payments.desk import Desk
from tests.payments.dunning.test_on_real_engines import add, look, rows

pytestmark = pytest.mark.integration
CALLS = Meter("calls", "call", "call", "sum", "n")
DUE = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)


@pytest.fixture
async def quotas(settings: Settings, pool: Pool) -> AsyncIterator[QuotaDesk]:
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, created_at)"
            " VALUES ('calls', 'call', 'call', 'sum', 'n', now()) ON CONFLICT DO NOTHING"
        )
    async with open_quota_desk(settings, pool) as desk:
        await fill(settings)
        yield desk


async def fill(settings: Settings) -> None:
    """Mark Redis as the quota agent does when all live totals are in it."""
    redis = connect_redis(settings.redis, timeout_s=5, connect_timeout_s=3)
    run = (await redis.info("server"))["run_id"]
    for number in range(settings.usage_partitions):
        await redis.hset(EPOCH_KEY, mapping={f"p{number}": f"{run}:t", f"hours:p{number}": f"{run}:t"})
    await redis.aclose()


async def answer(desk: QuotaDesk, tenant: str) -> str | None:
    """Return why the tenant may not use its calls."""
    book = await desk.entitlements.of_tenant(tenant)
    calls = book.of_feature("calls")
    return desk.refusal(book, calls, await desk.standing(tenant, book, calls, Registry.of([tenant], [CALLS])))


async def hold(desk: QuotaDesk, tenant: str, key: str) -> Decimal:
    held = await desk.hold(HoldRequest(tenant, "calls", Decimal(3), 60, key), Registry.of([tenant], [CALLS]))
    return held.decision.held


async def pay(pool: Pool, desk: Desk, invoice: InvoiceFinalized, amount: str) -> None:
    """Let a transfer of this amount be settled; dunning has not looked since."""
    payment_id = f"pay_{invoice.invoice_id}_{amount}"
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status,"
            " created_at, updated_at, settled_at) SELECT %s, invoice_id, tenant_id, 1 + (SELECT count(*) FROM payments"
            " AS other WHERE other.invoice_id = invoices.invoice_id), 'wire', %s, currency, 'succeeded', now(), now(),"
            " now() FROM invoices WHERE invoice_id = %s",
            (payment_id, Decimal(amount), invoice.invoice_id),
        )
    came = PaymentSettled(
        payment_id=payment_id, invoice_id=invoice.invoice_id, tenant_id=invoice.tenant_id, provider="wire",
        provider_reference="t-1", amount=amount, currency=invoice.currency, settled_at=format_instant(desk.clock.now()),
    )  # fmt: skip
    assert await settle_invoice(came, settlements=PostgresSettlements(pool), clock=desk.clock)


async def test_a_suspended_account_may_use_nothing_until_it_has_paid_and_then_at_once(
    desk: Desk, pool: Pool, settings: Settings, quotas: QuotaDesk
) -> None:
    tenant = await desk.books.add_tenant(None)
    invoice = await add(desk, tenant, DUE)
    async with pool.connection() as connection:
        # As if a card had been declined for good: the schedule of charged invoices, which suspends.
        await connection.execute(
            "INSERT INTO payments (payment_id, invoice_id, tenant_id, attempt, provider, amount, currency, status,"
            " failure_code, created_at, updated_at) VALUES (%s, %s, %s, 1, 'stripe', 119, 'USD', 'failed', 'lost_card',"
            " %s, %s)",
            (f"pay_{invoice.invoice_id}", invoice.invoice_id, tenant, DUE, DUE),
        )
    seen: dict[str, str | None] = {}
    for days in range(1, 40):
        desk.clock.travel_to((DUE + timedelta(days=days)).isoformat())
        await look(pool, desk.clock)
        (account,) = await rows(pool, "SELECT stage FROM dunning_accounts WHERE tenant_id = %s", tenant)
        if account["stage"] not in seen:
            quotas.entitlements._kept.clear()  # type: ignore[attr-defined]  # a few seconds later
            seen[account["stage"]] = await answer(quotas, tenant)
            if account["stage"] == "past_due":
                assert await hold(quotas, tenant, "before") == 3
                async with open_quota_desk(settings.model_copy(update={"past_due_access": "refused"}), pool) as strict:
                    assert await answer(strict, tenant) == "account_past_due"
                    with pytest.raises(AccountPastDueError):
                        await hold(strict, tenant, "strict")
    assert seen == {"grace": None, "past_due": None, "suspended": "account_suspended"}
    with pytest.raises(AccountSuspendedError):
        await hold(quotas, tenant, "after")

    # A wiped Redis says nothing else, before it is filled again and after.
    redis = connect_redis(settings.redis, timeout_s=5, connect_timeout_s=3)
    await redis.flushall()
    await redis.aclose()
    assert await answer(quotas, tenant) == "account_suspended"
    await fill(settings)
    assert await answer(quotas, tenant) == "account_suspended"
    with pytest.raises(AccountSuspendedError):
        await hold(quotas, tenant, "after")

    # A part is not enough; all of it is, in the moment it is settled, before dunning has looked again.
    await pay(pool, desk, invoice, "100.00")
    assert await answer(quotas, tenant) == "account_suspended"
    await pay(pool, desk, invoice, "19.00")
    assert await answer(quotas, tenant) is None
    # The reservation from before the suspension outlived the wipe, in the books.
    assert await hold(quotas, tenant, "after") == 6
    await look(pool, desk.clock)
    (account,) = await rows(pool, "SELECT stage FROM dunning_accounts WHERE tenant_id = %s", tenant)
    assert (account["stage"], await answer(quotas, tenant)) == ("current", None)


async def test_of_two_invoices_the_one_that_made_it_so_must_be_paid(desk: Desk, pool: Pool, quotas: QuotaDesk) -> None:
    tenant = await desk.books.add_tenant(None)
    worse, other = await add(desk, tenant, DUE), await add(desk, tenant, DUE + timedelta(days=20), "50.00", 2)
    desk.clock.travel_to((DUE + timedelta(days=21)).isoformat())
    await look(pool, desk.clock)
    async with pool.connection() as connection:
        # A suspension by a person's schedule for transfers.
        await connection.execute(
            "INSERT INTO dunning_steps (invoice_id, name, kind, planned_at, done_at, outcome, amount_open)"
            " VALUES (%s, 'suspension-1', 'suspension', %s, %s, 'done', 119)",
            (worse.invoice_id, DUE, desk.clock.now()),
        )
        await connection.execute("UPDATE dunning_cases SET look_at = %s", (desk.clock.now(),))
    await look(pool, desk.clock)
    assert await answer(quotas, tenant) == "account_suspended"
    await pay(pool, desk, other, "50.00")
    assert await answer(quotas, tenant) == "account_suspended"
    await pay(pool, desk, worse, "119.00")
    assert await answer(quotas, tenant) is None
