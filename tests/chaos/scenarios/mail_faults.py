"""Receivers of messages that are away for ten minutes, overloaded, or break off: every message is told, none twice."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from decimal import Decimal
from typing import Any

from tests.chaos import money_oracle, observed
from tests.chaos.money_world import METER, Billing, open_billing
from tests.chaos.row import HEAL_SECONDS, Row, differences
from tests.chaos.scenarios.registry import row
from tests.chaos.traffic import RUN

DOWN_SECONDS = 600.0
LIMIT = 20
# Pauses double from half a second to a minute: seven tries in the first minute, then one a minute.
_TRIES_AT_FIRST = 7
# Answers that are lost after the message was taken: the sender must say it again, under the same id.
_CUTS = 2


@row(
    "F17",
    "Slack and the mail server away for 10 minutes, then 429, 5xx and cut off: alerts and invoice mails, each once",
)
async def receivers_away(row: Row) -> None:
    # The workers' clocks run faster, so that their ten minutes are a few seconds here.
    rate, first = row.dose(100.0, 20.0), time.monotonic()

    def hurried() -> dict[str, Any]:
        # Who starts later is as far ahead as the others are by then.
        return {"clock": {"rate": rate, "shift_s": (rate - 1) * (time.monotonic() - first)}}

    async with open_billing(row) as billing:
        tenants = await billing.add_tenants(row.dose(5, 25))
        for tenant in tenants:
            row.world.limit(tenant, METER, LIMIT)
        billing.slack.set("refuse")
        billing.smtp.set("refuse")
        row.fault(2)
        workers = [billing.start("alerts", plan=hurried())]
        workers.append(billing.start("renderer", plan=hurried(), METERBOOK_INVOICE_EMAIL="true"))
        billing.start("outbox")
        await billing.serve()
        sales = billing.amounts(tenants, len(tenants), "mail")
        invoices = [made["invoice_id"] for made in await billing.sell(sales)]
        await _use_up(row, tenants)
        alerts = 2 * len(tenants)
        row.verdict.events = 2 * alerts + len(invoices)
        tried = "SELECT count(*) AS n FROM alert_deliveries WHERE attempts > 0 AND tenant_id = ANY(%s)"
        mailed = "SELECT count(*) AS n FROM document_deliveries WHERE attempts > 0 AND tenant_id = ANY(%s)"
        await _reaches(row, "every message to be tried", tried, 2 * alerts)
        began = time.monotonic()
        await _reaches(row, "every invoice to be rendered and its mail tried", mailed, len(invoices))
        await asyncio.sleep(max(0.0, began + DOWN_SECONDS / rate - time.monotonic()))
        early = len(billing.standins.slack_messages()) + len(billing.standins.mails())
        row.must(early == 0, f"{early} messages came through a closed door")
        [most] = money_oracle.rows(
            row, "SELECT max(attempts) AS n FROM alert_deliveries WHERE tenant_id = ANY(%s)", tenants
        )
        minutes = int(rate * (time.monotonic() - first) / 60)
        row.must(
            2 < most["n"] <= _TRIES_AT_FIRST + minutes, f"a message was tried {most['n']} times in {minutes} minutes"
        )
        _misbehave(billing, row)
        billing.slack.set("pass")
        billing.smtp.set("pass")
        await asyncio.sleep(row.dose(0.5, 3.0))
        for worker in workers:
            worker.is_wanted = False
            worker.kill()
            row.fault()
            billing.start(worker.name, plan=hurried(), METERBOOK_INVOICE_EMAIL="true")
        row.healed()
        began = time.monotonic()
        await _reaches(
            row,
            "every message to be out",
            "SELECT (SELECT count(*) FROM alert_deliveries WHERE status = 'sent' AND tenant_id = ANY(%s))"
            " + (SELECT count(*) FROM document_deliveries WHERE status = 'sent' AND tenant_id = ANY(%s)) AS n",
            2 * alerts + len(invoices),
        )
        row.verdict.recovery_s = time.monotonic() - began
        _judge(row, billing, tenants, sales)
        money_oracle.judge_documents(row, billing)
        row.note(
            f"{alerts} alerts on two channels and {len(invoices)} mails; tried at most {most['n']} times meanwhile"
        )


def _misbehave(billing: Billing, row: Row) -> None:
    """Once the doors are open: too many at once, broken, cut off before the message and after taking it."""
    slack = {"rate_limit": row.dose(3, 20), "server_error": row.dose(3, 20), "cut_before": row.dose(2, 10)}
    for kind, count in slack.items():
        billing.standins.fail_slack(kind, count)
    billing.standins.fail_slack("cut_after", _CUTS)
    mail = {421: row.dose(3, 10), 451: row.dose(3, 10)}
    for code, count in mail.items():
        billing.standins.fail_smtp("refuse", count, code=code)
    billing.standins.fail_smtp("cut_after", _CUTS)
    row.fault(sum(slack.values()) + sum(mail.values()) + 2 * _CUTS)


async def _use_up(row: Row, tenants: list[str]) -> None:
    """Let every tenant use its limit up: two alerts each, at 80 and at 100 %."""
    traffic = row.traffic(tenants)
    await row.send(
        [traffic.single(traffic.event(one, kind=RUN, at=observed.now())) for one in tenants for _ in range(LIMIT + 3)]
    )
    await row.caught_up("meter", "quota")
    month = f"{observed.now():%Y-%m}"
    used = row.expected().periods
    over = [one for one in tenants if used.get((one, METER, month), (Decimal(), 0))[0] >= LIMIT]
    row.must(len(over) == len(tenants), "the month changed while its limits were used up: run again")


def _judge(row: Row, billing: Billing, tenants: list[str], sales: list[tuple[str, Decimal, str]]) -> None:
    slack: dict[str, set[str]] = {tenant: set() for tenant in tenants}
    copies: Counter[str] = Counter()
    for message in billing.standins.slack_messages():
        text = message["payload"]["blocks"]
        alert = text[-1]["elements"][0]["text"].rpartition(" · ")[2]
        [tenant] = [one for one in tenants if re.search(rf"\n{re.escape(one)}$", str_of_fields(text), re.MULTILINE)]
        slack[tenant].add(alert)
        copies[f"slack {alert}"] += 1
    mailed: dict[str, set[str]] = {tenant: set() for tenant in tenants}
    invoices: dict[str, set[str]] = {tenant: set() for tenant in tenants}
    for mail in billing.standins.mails():
        copies[f"mail {mail['message_id']}"] += 1
        if "ops@acme.invalid" in mail["to"]:
            alert = mail["message_id"].strip("<>").partition("@")[0]
            [tenant] = [one for one in tenants if re.search(rf"\b{re.escape(one)}\b(?!-)", mail["text"])]
            mailed[tenant].add(alert)
            continue
        tenant = mail["to"].partition("@")[0].rpartition("<")[2]
        invoices.setdefault(tenant, set()).add(mail["message_id"])
        _judge_attachments(row, mail, tenant)
    _count(row, "alerts on Slack", {tenant: len(found) for tenant, found in slack.items()}, dict.fromkeys(tenants, 2))
    _count(row, "alerts by mail", {tenant: len(found) for tenant, found in mailed.items()}, dict.fromkeys(tenants, 2))
    row.must(slack == mailed, "Slack and mail were told different alerts")
    wanted = Counter(tenant for tenant, _, _ in sales)
    _count(row, "mails with invoices", {tenant: len(found) for tenant, found in invoices.items()}, dict(wanted))
    again = sum(times - 1 for times in copies.values())
    # A receiver that keeps ids sees none of these; who does not, sees those whose answer was lost or sender killed.
    row.must(again <= 2 * _CUTS + 2, f"{again} messages came again, {2 * _CUTS} answers were lost and 2 workers killed")
    row.note(f"{again} messages came twice under the same id, {2 * _CUTS} answers had been lost")


def _judge_attachments(row: Row, mail: dict[str, Any], tenant: str) -> None:
    recorded = {
        one["sha256"]
        for one in money_oracle.rows(
            row,
            "SELECT d.sha256 FROM invoice_documents AS d JOIN invoices USING (invoice_id) WHERE tenant_id = %s",
            tenant,
        )
    }
    sent = {one["sha256"] for one in mail["attachments"]}
    row.must(bool(sent) and sent <= recorded, f"a mail to {tenant} brings what was never recorded")


def str_of_fields(blocks: list[dict[str, Any]]) -> str:
    """Return the fields of a Slack message as text, a line for each name and value."""
    return "\n".join(field["text"] for block in blocks for field in block.get("fields", []))


def _count(row: Row, what: str, found: dict[str, int], wanted: dict[str, int]) -> None:
    row.verdict.lost += sum(max(0, count - found.get(tenant, 0)) for tenant, count in wanted.items())
    row.verdict.doubled += sum(max(0, count - wanted.get(tenant, 0)) for tenant, count in found.items())
    row.verdict.wrong += differences(what, wanted, found)


async def _reaches(row: Row, what: str, query: str, count: int) -> None:
    parameters = [row.tenants] * query.count("%s")

    async def enough() -> bool:
        [found] = await asyncio.to_thread(money_oracle.rows, row, query, *parameters)
        return bool(found["n"] >= count)

    await row.wait_for(enough, what, HEAL_SECONDS)
