"""A PostgreSQL that is killed, restarted, silent, full, or takes transactions back, while money moves through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg

from tests.chaos import money_oracle, observed
from tests.chaos.money_oracle import Owed
from tests.chaos.money_world import BAD_CARD, GOOD_CARD, METER, PRICE, Billing, open_billing
from tests.chaos.row import HEAL_SECONDS, Row, differences
from tests.chaos.scenarios.registry import row

# Sells under a name so many times, until all are invoiced.
Trade = Callable[[str, int], Coroutine[Any, Any, None]]
# How long somebody is waited for who wants what is held.
_VICTIM_SECONDS = 20


@row("F13", "PostgreSQL killed, restarted, silent for 20 s: rating, invoice run and payments go on, each once")
async def postgres_away(row: Row) -> None:
    engine, proxy = row.world.engines["postgres"], row.world.proxies["postgres"]

    async def kill(pause_s: float = 0.5) -> None:
        await asyncio.to_thread(engine.kill)
        row.fault()
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(engine.start)

    async def restart() -> None:
        await asyncio.to_thread(engine.stop)
        row.fault()
        await asyncio.to_thread(engine.start)

    async def stall() -> None:
        proxy.set("stall")
        row.fault()
        await asyncio.sleep(row.dose(3, 20))
        proxy.set("pass")

    async with open_billing(row) as billing:
        tenants = await billing.add_tenants(row.dose(10, 200), GOOD_CARD)
        await billing.use_last_month(tenants)
        _start_all(billing, row.dose(1, 2))
        billing.start("rating")
        await billing.serve()
        # Rating: what this month costs so far, while its store of plans dies.
        rated = asyncio.create_task(kill())
        await billing.use(tenants, observed.now() - timedelta(hours=30))
        await rated
        # A charge takes its time, so that there is one under way when its database dies.
        slow = {"seconds": 0.3, "method": "POST", "path": "/v1/payment_intents"}
        billing.standins.fail_stripe("slow", len(tenants), **slow)
        run = asyncio.create_task(billing.run_until_done())
        for fault in (kill, stall, restart) * row.dose(1, 3):
            await asyncio.sleep(billing.rng.random() * row.dose(1.0, 2.0))
            await fault()
        await _some(row, "a charge", lambda: bool(billing.standins.ledger()))
        row.note(f"{len(billing.standins.ledger())} of {len(tenants)} charges were made when it was killed again")
        await kill()
        row.healed()
        began = time.monotonic()
        await run
        owed = money_oracle.monthly(row, tenants, billing.month, is_paid=True)
        await _until_paid(row, owed)
        row.verdict.recovery_s = time.monotonic() - began
        await _until_rated(row, tenants)
        await billing.end()
        # Redis forgets hours after a month, and this usage is of the last one.
        await row.settle(redis=False)
        await _judge(row, billing, owed)


@row("F14", "PostgreSQL without connections, sessions ended, deadlocks, transactions taken back: retried, each once")
async def postgres_refuses(row: Row) -> None:
    async with open_billing(row) as billing:
        payers = await billing.add_tenants(row.dose(8, 100), GOOD_CARD)
        others = await billing.add_tenants(row.dose(2, 20), BAD_CARD)
        tenants = [*payers, *others]
        await billing.use_last_month(tenants)
        _start_all(billing, row.dose(1, 2))
        await billing.serve()
        sold: list[tuple[str, Decimal, str]] = []

        async def trade(mark: str, count: int) -> None:
            sales = billing.amounts(tenants, count, mark)
            sold.extend(sales)
            await billing.sell(sales)

        # One invoice first: where there is none, no row of a series can be fought for.
        await trade("first", len(tenants))
        run = asyncio.create_task(billing.run_until_done())
        for fault in (_take_back, _deadlock, _end_sessions, _exhaust):
            await fault(row, tenants, trade)
        row.healed()
        began = time.monotonic()
        await run
        bad = set(others)
        owed = money_oracle.monthly(row, payers, billing.month, is_paid=True)
        owed += money_oracle.monthly(row, others, billing.month, is_paid=False)
        owed += [Owed(tenant, amount, tenant not in bad) for tenant, amount, _ in sold]
        await _until_paid(row, owed)
        row.verdict.recovery_s = time.monotonic() - began
        row.note(f"{sum(worker.logged('record.retrying') for worker in billing.started)} records were tried again")
        await billing.end()
        # Redis forgets hours after a month, and this usage is of the last one.
        await row.settle(redis=False)
        await _judge(row, billing, owed)


async def _take_back(row: Row, tenants: list[str], trade: Trade) -> None:
    """Let every fourth write to some tables fail as a serialization failure or a deadlock does, for a while."""
    tables = ("invoices", "ledger_postings", "payments", "settlements", "payment_changes", "webhook_inbox", "outbox")
    with _connect(row) as connection:
        connection.execute("CREATE SEQUENCE IF NOT EXISTS chaos_writes")
        connection.execute(
            "CREATE OR REPLACE FUNCTION chaos_take_back() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n bigint;"
            " BEGIN n := nextval('chaos_writes'); IF n % 4 = 0 THEN RAISE EXCEPTION 'taken back by the fault table'"
            " USING ERRCODE = CASE WHEN n % 8 = 0 THEN '40001' ELSE '40P01' END; END IF; RETURN NULL; END $$"
        )
        began = _count(row, "SELECT last_value FROM chaos_writes")
        for table in tables:
            connection.execute(
                f"CREATE TRIGGER chaos_take_back BEFORE INSERT OR UPDATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION chaos_take_back()".encode()
            )
        trading = asyncio.create_task(trade("taken-back", row.dose(6, 100)))
        await asyncio.sleep(row.dose(2, 20))
        for table in tables:
            connection.execute(f"DROP TRIGGER chaos_take_back ON {table}".encode())
    await trading
    taken_back = (_count(row, "SELECT last_value FROM chaos_writes") - began) // 4
    row.must(taken_back > 0, "nothing was taken back")
    row.note(f"{taken_back} transactions were taken back")
    row.fault(taken_back)


async def _deadlock(row: Row, tenants: list[str], trade: Trade) -> None:
    """Take the locks of an invoice in the opposite order: first the numbers, then the accounts."""

    def await_victim(holder: int) -> None:
        # Whoever wants a number has locked its account: without that the two never meet.
        waiting = f"SELECT count(*) FROM pg_stat_activity WHERE {holder:d} = ANY(pg_blocking_pids(pid))"
        deadline = time.monotonic() + _VICTIM_SECONDS
        while not _count(row, waiting) and time.monotonic() < deadline:
            time.sleep(0.02)

    def fight(has_numbers: threading.Event) -> None:
        with _connect(row) as connection, contextlib.suppress(psycopg.errors.DeadlockDetected):
            # Who waits longest looks for deadlocks and is ended: so it is the product's session, not this one.
            connection.execute("SET deadlock_timeout = '30s'")
            with connection.transaction():
                connection.execute("SELECT FROM invoice_series FOR UPDATE")
                has_numbers.set()
                await_victim(connection.info.backend_pid)
                for tenant in reversed(tenants):
                    connection.execute("SELECT FROM tenants WHERE tenant_id = %s FOR UPDATE", (tenant,))

    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = _count(row, query)
    for number in range(row.dose(2, 10)):
        # Somebody must want a number while it is held: sales begin then.
        has_numbers = threading.Event()
        fighting = asyncio.create_task(asyncio.to_thread(fight, has_numbers))
        await asyncio.to_thread(has_numbers.wait, _VICTIM_SECONDS)
        await asyncio.gather(fighting, trade(f"deadlock-{number}", len(tenants)))
    await _some(row, "a deadlock", lambda: _count(row, query) > before)
    row.note(f"{_count(row, query) - before} deadlocks")
    row.fault(_count(row, query) - before)


async def _end_sessions(row: Row, tenants: list[str], trade: Trade) -> None:
    """End sessions of the product in the middle of their transactions, as an administrator can."""
    query = (
        "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ="
        " 'meterbook' AND state <> 'idle' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1)"
    )
    trading = asyncio.create_task(trade("ended", row.dose(10, 200)))
    ended, wanted = 0, row.dose(6, 60)
    deadline = time.monotonic() + row.dose(5, 60)
    while ended < wanted and time.monotonic() < deadline:
        ended += await asyncio.to_thread(_count, row, query)
        await asyncio.sleep(0.05)
    await trading
    row.must(ended > 0, "no session was ended in a transaction")
    row.note(f"{ended} sessions were ended while they worked")
    row.fault(ended)


async def _exhaust(row: Row, tenants: list[str], trade: Trade) -> None:
    """Take every connection the server has, those of the product included, and keep them."""
    taken: list[Any] = []

    def take_all() -> None:
        while len(taken) < 1_000:
            taken.append(_connect(row))

    def push_out() -> None:
        taken[0].execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'meterbook'")

    trading: asyncio.Task[None] | None = None
    try:
        for _ in range(3):
            with contextlib.suppress(psycopg.OperationalError):
                await asyncio.to_thread(take_all)
            await asyncio.to_thread(push_out)
            await asyncio.sleep(0.2)
        row.note(f"all {len(taken)} connections were taken")
        row.fault()
        trading = asyncio.create_task(trade("exhausted", row.dose(6, 100)))
        end = time.monotonic() + row.dose(3, 30)
        while time.monotonic() < end:
            with contextlib.suppress(psycopg.OperationalError):
                await asyncio.to_thread(take_all)
            await asyncio.sleep(0.1)
    finally:
        for connection in taken:
            connection.close()
    assert trading is not None
    await trading


def _start_all(billing: Billing, count: int) -> None:
    """Start every stage from invoices to settled payments, `count` of those that may race."""
    for _ in range(count):
        billing.start("invoicing")
        billing.start("payments")
    billing.start("outbox", "settlements", "webhooks")
    billing.start("payment-upkeep")


async def _until_paid(row: Row, owed: Sequence[Owed]) -> None:
    """Wait until every invoice is there and every payment has its end."""

    def done() -> bool:
        [found] = money_oracle.rows(
            row,
            "SELECT (SELECT count(*) FROM invoices WHERE tenant_id = ANY(%s)) AS invoices,"
            " (SELECT count(*) FROM invoices WHERE tenant_id = ANY(%s) AND status = 'paid') AS paid,"
            " (SELECT count(*) FROM payments WHERE tenant_id = ANY(%s) AND status = 'failed') AS failed,"
            " (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS unpublished",
            row.tenants, row.tenants, row.tenants,
        )  # fmt: skip
        paid = sum(one.is_paid for one in owed)
        enough = found["paid"] >= paid and found["failed"] >= len(owed) - paid and not found["unpublished"]
        return enough and found["invoices"] >= len(owed)

    await _some(row, f"{len(owed)} invoices to be issued and charged", done)


async def _until_rated(row: Row, tenants: list[str]) -> None:
    """Wait until running costs are usage times price to the cent, as the oracle counts usage."""
    month = f"{observed.now():%Y-%m}"
    used = row.expected().periods
    wanted = {
        tenant: money_oracle.cents(used[tenant, METER, month][0] * PRICE)
        for tenant in tenants
        if (tenant, METER, month) in used
    }
    store = observed.Store(row.world.urls.clickhouse)
    found: dict[str, Decimal] = {}

    def rated() -> bool:
        query = (
            "SELECT tenant, sum(amount) FROM rated_usage FINAL WHERE state = 'running' AND charge = 'runs'"
            " AND period = %(month)s AND tenant IN %(tenants)s GROUP BY tenant HAVING sum(amount) != 0"
        )
        found.clear()
        found.update({tenant: Decimal(sum_) for tenant, sum_ in store.rows(query, tenants=tenants, month=month)})
        return found == wanted

    await _some(row, "running costs to be usage times price", rated)
    store.close()
    row.verdict.wrong += differences("running costs", wanted, found)


async def _judge(row: Row, billing: Billing, owed: Sequence[Owed]) -> None:
    money_oracle.judge_invoices(row, owed)
    money_oracle.judge_charges(row, billing, owed)
    money_oracle.judge_books(row, owed)
    await money_oracle.judge_with_own_proofs(row, billing)
    row.note(f"{len(owed)} invoices, {len(billing.standins.ledger())} charges")


async def _some(row: Row, what: str, holds: Callable[[], bool]) -> None:
    """Wait until `holds`; while PostgreSQL does not answer, it does not."""

    async def look() -> bool:
        try:
            return await asyncio.to_thread(holds)
        except psycopg.OperationalError:
            return False

    await row.wait_for(look, what, HEAL_SECONDS)


def _count(row: Row, query: str) -> int:
    with _connect(row) as connection:
        found = connection.execute(query.encode()).fetchone()
    return int(found[0]) if found else 0


def _connect(row: Row) -> psycopg.Connection[Any]:
    return psycopg.connect(row.world.urls.postgres, autocommit=True, application_name="chaos", connect_timeout=5)
