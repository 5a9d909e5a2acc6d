"""A payment provider that misbehaves in every way it may, while payment workers die: one charge per amount due."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from tests import on_topics
from tests.chaos import money_oracle, observed
from tests.chaos.money_oracle import Owed
from tests.chaos.money_world import BAD_CARD, GOOD_CARD, Billing, open_billing
from tests.chaos.row import HEAL_SECONDS, Row
from tests.chaos.scenarios.registry import row

THREE_DAYS = 3 * 86_400
# What a worker waits for the provider, instead of 15 s, and what a slow provider takes.
_TIMEOUT_SECONDS, _SLOW_SECONDS = 0.8, 1.2
_USUAL: dict[str, Any] = {"timing": "after", "copies": 1, "reverse": False, "enabled_events": ["*"]}
# Of the provider's own 500s three in a row end a payment for good (docs/payments.md): so many at most at once.
_FAULTS_AT_ONCE = 2


@dataclass(frozen=True)
class Misbehaviour:
    """What the provider does to some charges, or to all webhooks."""

    name: str
    kind: str = ""
    webhooks: dict[str, Any] = field(default_factory=dict)


MISBEHAVIOURS = (
    Misbehaviour("a time-out after the charge", "hang_after"),
    Misbehaviour("cut off after the charge", "cut_after"),
    Misbehaviour("cut off within the answer", "cut_in_body"),
    Misbehaviour("500, nothing done", "server_error"),
    Misbehaviour("500, though charged", "server_error_after"),
    Misbehaviour("409", "conflict"),
    Misbehaviour("429", "rate_limit"),
    Misbehaviour("slow", "slow"),
    Misbehaviour("webhooks before the answer", webhooks={"timing": "before"}),
    Misbehaviour("webhooks twice", webhooks={"copies": 2}),
    Misbehaviour("webhooks in reverse", webhooks={"reverse": True}),
    Misbehaviour("webhooks three days late", webhooks={"timing": "held"}),
    Misbehaviour("webhooks never", webhooks={"enabled_events": []}),
)


@row("F16", "a payment provider times out, fails, is slow, its webhooks come early, twice, reversed, late: one charge")
async def provider_misbehaves(row: Row) -> None:
    async with open_billing(row) as billing:
        payers = await billing.add_tenants(row.dose(7, 28), GOOD_CARD)
        others = await billing.add_tenants(row.dose(1, 4), BAD_CARD)
        tenants = [*payers, *others]
        impatient = {"provider_timeout_s": _TIMEOUT_SECONDS}
        for _ in range(2):
            billing.start("payments", plan=impatient)
        billing.start("outbox", "settlements")
        billing.start("webhooks")
        await billing.serve()
        bad, owed = set(others), list[Owed]()
        used: Counter[str] = Counter()
        per_kind, at_once = row.dose(3, 200), row.dose(3, 10)
        for number, one in enumerate(MISBEHAVIOURS):
            billing.standins.set_webhooks(**{**_USUAL, **one.webhooks})
            # Whose webhooks never come are for the look-up, which takes fifty every ten seconds.
            count = min(per_kind, 40) if one.name == "webhooks never" else per_kind
            for begin in range(0, count, at_once):
                if one.kind:
                    details = {"seconds": _SLOW_SECONDS, "method": "POST", "path": "/v1/payment_intents"}
                    billing.standins.fail_stripe(one.kind, _FAULTS_AT_ONCE, **details)
                sales = billing.amounts(tenants, min(at_once, count - begin), f"{number}-{begin}")
                billing.rng.shuffle(tenants)
                selling = asyncio.create_task(billing.sell(sales))
                if begin == count // at_once // 2 * at_once and (row.full or number == len(MISBEHAVIOURS) // 2):
                    await asyncio.sleep(billing.rng.random())
                    row.fleet.kill("payments")
                    row.fault()
                await selling
                owed += [Owed(tenant, amount, tenant not in bad) for tenant, amount, _ in sales]
                await _until_known(row, owed, one.name)
        for request in billing.standins.stripe_requests():
            if request["fault"]:
                used[request["fault"]] += 1
        row.fault(used.total())
        kinds = {one.kind for one in MISBEHAVIOURS if one.kind}
        row.must(set(used) >= kinds, f"the provider never did {kinds - set(used)}")
        row.note(f"the provider's faults: {dict(sorted(used.items()))}")
        row.healed()
        began = time.monotonic()
        await _three_days_later(row, billing)
        await _until_settled(row, owed)
        row.verdict.recovery_s = time.monotonic() - began
        row.verdict.events = len(owed)
        _judge(row, billing, owed)
        before = money_oracle.state_of(row, billing)
        await _say_again(row)
        await billing.end()
        row.must(money_oracle.state_of(row, billing) == before, "invoices that were announced again changed something")
        _judge(row, billing, owed)
        await money_oracle.judge_with_own_proofs(row, billing)
        late = sum(one["status"] == 200 for one in billing.standins.deliveries())
        row.note(f"{len(owed)} payments, {len(billing.standins.ledger())} charges, {late} webhooks taken")


async def _three_days_later(row: Row, billing: Billing) -> None:
    """Three days on, keys are forgotten; what webhooks were held come now, newest first; the others never do."""
    later = {"clock": {"shift_s": THREE_DAYS}, "provider_timeout_s": _TIMEOUT_SECONDS}
    await billing.end("payments", "webhooks", "money-api")
    billing.standins.expire_idempotency_keys()
    billing.standins.set_webhooks(**_USUAL, timestamp_offset_seconds=THREE_DAYS)
    billing.start("payments", plan=later)
    billing.start("webhooks", plan=later)
    await billing.serve(plan=later)
    released = billing.standins.release_webhooks(reverse=True)
    row.must(released > 0, "no webhook was held")
    row.fault(released)
    billing.start("payment-upkeep", plan=later)


async def _until_known(row: Row, owed: list[Owed], what: str) -> None:
    """Wait until the provider was asked for every payment, and has answered."""
    query = "SELECT count(DISTINCT invoice_id) AS n FROM payments WHERE tenant_id = ANY(%s) AND status <> 'pending'"

    async def known() -> bool:
        [found] = await asyncio.to_thread(money_oracle.rows, row, query, row.tenants)
        return bool(found["n"] >= len(owed))

    await row.wait_for(known, f"{len(owed)} payments to be known ({what})", HEAL_SECONDS)


async def _until_settled(row: Row, owed: list[Owed]) -> None:
    """Wait until no payment is open, every one that succeeded is settled, and everything is told."""
    query = (
        "SELECT (SELECT count(*) FROM payments WHERE tenant_id = ANY(%s) AND status IN ('succeeded', 'failed')) AS n,"
        " (SELECT count(*) FROM payments WHERE tenant_id = ANY(%s)"
        " AND status NOT IN ('succeeded', 'failed', 'canceled')) AS open,"
        " (SELECT count(*) FROM invoices WHERE tenant_id = ANY(%s) AND status = 'paid') AS paid,"
        " (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS unpublished,"
        " (SELECT count(*) FROM webhook_inbox WHERE processed_at IS NULL) AS unread"
    )
    paid = sum(one.is_paid for one in owed)

    async def settled() -> bool:
        [found] = await asyncio.to_thread(money_oracle.rows, row, query, row.tenants, row.tenants, row.tenants)
        enough = found["n"] >= len(owed) and found["paid"] >= paid
        return enough and not (found["open"] or found["unpublished"] or found["unread"])

    await row.wait_for(settled, f"{len(owed)} payments to have an end", HEAL_SECONDS)


async def _say_again(row: Row) -> None:
    """Announce every invoice of this row once more, as a relay does that died before it noted what it had published."""
    mine = {tenant.encode() for tenant in row.tenants}
    bootstrap = row.world.urls.kafka
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        records = [record async for record in on_topics.read_all(bootstrap, "invoice.finalized") if record.key in mine]
        for record in records:
            await producer.send_and_wait("invoice.finalized", value=record.value, key=record.key)
    finally:
        await producer.stop()
    row.must(len(records) > 0, "no invoice had been announced")

    async def all_read() -> bool:
        return (await observed.unread(bootstrap, ["payments"]))["payments"] == 0

    await row.wait_for(all_read, "the announcements to be read again", HEAL_SECONDS)


def _judge(row: Row, billing: Billing, owed: list[Owed]) -> None:
    before = row.verdict.lost, row.verdict.doubled, row.verdict.phantom
    if any(before):
        return  # said once is enough
    money_oracle.judge_invoices(row, owed)
    money_oracle.judge_charges(row, billing, owed)
    money_oracle.judge_books(row, owed)
