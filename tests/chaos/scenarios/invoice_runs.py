"""Invoice runs that are killed at any place: each invoice once, no number left out, every PDF whole."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time

from tests import on_topics
from tests.chaos import money_oracle, observed
from tests.chaos.fleet import ROOT
from tests.chaos.money_world import Billing, open_billing
from tests.chaos.row import HEAL_SECONDS, Row
from tests.chaos.scenarios.registry import row

# A hundred invoices taken together take some seventy waits for PostgreSQL: a worker that is to die does so while there
# is work left, now before a commit, now after some.
_ROUND_TRIPS_AN_INVOICE = 1


@row("F27", "an invoice run killed -9 at any place: each invoice once, no gap, PDFs whole; again: nothing new")
async def killed_runs(row: Row) -> None:
    async with open_billing(row) as billing:
        tenants = await billing.add_tenants(row.dose(12, 1_000))
        await billing.use_last_month(tenants)
        billing.start("outbox")
        billing.start("renderer", METERBOOK_RENDER_PROCESSES="2")
        kills = row.dose(3, 20)
        await _kill_the_run(row, billing)
        await billing.run_until_done()
        died = 1
        while died < kills:
            if died % 5 == 4:
                # Whoever publishes and whoever renders die as well, at any moment; they are started again.
                await asyncio.sleep(billing.rng.random() * row.dose(0.5, 2.0))
                row.fleet.kill(billing.rng.choice(["outbox", "renderer"]))
            elif not await _die_invoicing(row, billing, len(tenants), kills - died):
                break
            died += 1
        row.fault(died)
        row.must(2 * died > kills, f"only {died} of {kills} kills came before all was invoiced")
        row.healed()
        began = time.monotonic()
        for _ in range(2):
            billing.start("invoicing")
        await _until_rendered(row, len(tenants))
        row.verdict.recovery_s = time.monotonic() - began
        owed = money_oracle.monthly(row, tenants, billing.month, is_paid=False)
        await _run_again(row, billing)
        await billing.end()
        # Redis forgets hours after a month, and this usage is of the last one.
        await row.settle(redis=False)
        money_oracle.judge_invoices(row, owed)
        money_oracle.judge_books(row, owed)
        money_oracle.judge_documents(row, billing)
        await money_oracle.judge_with_own_proofs(row, billing)
        row.note(f"{len(owed)} invoices and PDFs; {_count(row, _INVOICES)} rows after {died} kills")


async def _kill_the_run(row: Row, billing: Billing) -> None:
    """End `meterbook invoice run` by kill -9 while it works."""
    asked = sum((await on_topics.ends(row.world.urls.kafka, "invoicing.requests")).values())
    command = [sys.executable, "-m", "runtime", "invoice", "run", "--period", billing.month]
    process = subprocess.Popen(
        command, env=billing.command_environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    async def has_asked() -> bool:
        told = sum((await on_topics.ends(row.world.urls.kafka, "invoicing.requests")).values())
        return process.poll() is not None or told > asked

    if billing.rng.random() < 0.5:
        await row.wait_for(has_asked, "the run to ask for an invoice")
    else:
        await asyncio.sleep(billing.rng.random() * 2)
    process.kill()
    process.wait()


async def _die_invoicing(row: Row, billing: Billing, wanted: int, kills: int) -> bool:
    """Start a worker that dies at some wait for PostgreSQL; False if everything was invoiced before."""
    left = wanted - await asyncio.to_thread(_count, row, _INVOICES)
    most = max(30, _ROUND_TRIPS_AN_INVOICE * left // kills)
    hit = int(math.exp(billing.rng.uniform(math.log(5), math.log(most))))
    when = billing.rng.choice(["before", "after"])
    worker = billing.start("invoicing", plan={"round_trip": {"hit": hit, "when": when}})
    worker.is_wanted = False

    async def ended() -> bool:
        return not worker.is_running or await asyncio.to_thread(_count, row, _INVOICES) >= wanted

    await row.wait_for(ended, "an invoicing worker to die", HEAL_SECONDS)
    died = not worker.is_running
    row.must(not died or worker.process.returncode == -9, f"invoicing ended with {worker.process.returncode}")
    worker.kill()
    return died


async def _until_rendered(row: Row, wanted: int) -> None:
    async def rendered() -> bool:
        documents = "SELECT count(*) AS n FROM invoice_documents JOIN invoices USING (invoice_id)"
        mine = " WHERE tenant_id = ANY(%s) AND media_type = 'application/pdf'"
        there = await asyncio.to_thread(_count, row, _INVOICES)
        return there >= wanted and await asyncio.to_thread(_count, row, documents + mine) >= wanted

    await row.wait_for(rendered, f"{wanted} invoices to be issued and rendered", row.dose(HEAL_SECONDS, 600))


async def _run_again(row: Row, billing: Billing) -> None:
    """Once more: every request is read, and nothing is new."""
    before = await asyncio.to_thread(money_oracle.state_of, row, billing)
    told = await billing.run_until_done()
    row.must(set(told["requested"]) >= set(row.tenants), "the run did not ask for every tenant")

    async def all_read() -> bool:
        return (await observed.unread(row.world.urls.kafka, ["invoicing"]))["invoicing"] == 0

    await row.wait_for(all_read, "every request to be handled", HEAL_SECONDS)
    after = await asyncio.to_thread(money_oracle.state_of, row, billing)
    changed = sorted(name for name in before if before[name] != after[name])
    row.must(not changed, f"running again changed {changed}")


_INVOICES = "SELECT count(*) AS n FROM invoices WHERE number IS NOT NULL AND tenant_id = ANY(%s)"


def _count(row: Row, query: str) -> int:
    [found] = money_oracle.rows(row, query, row.tenants)
    return int(found["n"])
