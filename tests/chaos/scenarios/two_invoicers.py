"""Two schedulers and two invoicing workers at once, one of them killed: each invoice exactly once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.chaos import money_oracle, observed
from tests.chaos.money_world import Billing, open_billing
from tests.chaos.row import Row
from tests.chaos.scenarios.registry import row


@row("F28", "two invoice runs and two invoicing workers at once: each invoice once, no gap")
async def two_invoicers(row: Row) -> None:
    async with open_billing(row) as billing:
        tenants = await billing.add_tenants(row.dose(12, 200))
        await billing.use_last_month(tenants)
        workers = [billing.start("invoicing") for _ in range(2)]
        billing.start("outbox")
        running = asyncio.gather(*(asyncio.to_thread(_run, billing) for _ in range(2)))
        await asyncio.sleep(row.dose(1.5, 3.0))
        workers[0].kill()
        row.fault(3)
        told = await running
        row.healed()

        async def all_invoiced() -> bool:
            return await asyncio.to_thread(_invoiced, row) >= len(tenants)

        await row.wait_for(all_invoiced, "every invoice", 120)
        told.append(await asyncio.to_thread(_run, billing))  # once more: nothing is left to bill
        await row.wait_for(lambda: _all_read(row), "every request to be handled", 60)
        await billing.end()
        await row.settle()
        owed = money_oracle.monthly(row, tenants, billing.month, is_paid=False)
        money_oracle.judge_invoices(row, owed)
        money_oracle.judge_books(row, owed)
        # Tenants of earlier rows are asked for as well, and have nothing left to bill.
        left_out = [set(tenants) - set(one["requested"]) for one in told]
        row.must(not any(left_out), f"a run did not ask for every tenant: {left_out}")
        row.note(f"{len(owed)} invoices of {len(tenants)} tenants")


def _run(billing: Billing) -> Any:
    """Run `meterbook invoice run` in a process of its own."""
    done = billing.meterbook("invoice", "run", "--period", billing.month, "--wait", "60", "--json")
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _invoiced(row: Row) -> int:
    query = "SELECT count(*) AS n FROM invoices WHERE tenant_id = ANY(%s) AND number IS NOT NULL"
    [found] = money_oracle.rows(row, query, row.tenants)
    return int(found["n"])


async def _all_read(row: Row) -> bool:
    left = await observed.unread(row.world.urls.kafka, ["invoicing"])
    return left["invoicing"] == 0
