"""Many tenants in one transaction get to the cent what each would get alone, on the real engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.messages import InvoicingRequest, encode_message
from invoicing import invoice_together as module
from invoicing import issue_document
from invoicing.adapters.clickhouse import ClickHouseUsage
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_numbers import PostgresNumbers
from invoicing.adapters.postgres_together import PostgresBooksTogether
from invoicing.check_numbers import check_numbers
from invoicing.consumer import first_of_tenants
from invoicing.domain.invoice import Invoice
from invoicing.invoice_period import invoice_period
from invoicing.invoice_together import InvoicedTogether, invoice_together
from invoicing.read_together import asked_once
from ledger.adapters.postgres_audit import PostgresAudit
from ledger.check_ledger import check_ledger
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.credit import CreditGrant, CreditKind
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from tests.invoicing.scene import TERMS, at
from tests.invoicing.test_invoicing_on_real_engines import subscribe, use

NOVEMBER = at("2026-11-03")


@dataclass
class Desk:
    """Both ways of invoicing, on the same engines."""

    settings: Settings
    pool: Pool
    usage: ClickHouseUsage

    async def alone(self, tenant_id: str, period: str = "2026-10") -> list[Invoice]:
        request, clock = request_of(tenant_id, period), ManualClock(NOVEMBER)
        return await invoice_period(request, books=PostgresBooks(self.pool), usage=self.usage, terms=TERMS, clock=clock)

    async def together(self, tenant_ids: Iterable[str], period: str = "2026-10") -> InvoicedTogether:
        requests = [request_of(tenant_id, period) for tenant_id in tenant_ids]
        books = PostgresBooksTogether(self.pool)
        return await invoice_together(requests, books=books, usage=self.usage, terms=TERMS, clock=ManualClock(NOVEMBER))

    def rows(self, tenant_id: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return what the stores hold of a tenant, with the tenant's own names and numbers left open."""
        with psycopg.connect(self.settings.postgres) as connection:
            names = connection.execute(
                "SELECT number FROM invoices WHERE tenant_id = %s ORDER BY sequence", (tenant_id,)
            )
            numbers = [number for (number,) in names.fetchall()]

            def open_(value: Any) -> Any:
                if not isinstance(value, dict):
                    return value
                text = json.dumps(value, sort_keys=True)
                for place, number in enumerate(numbers):
                    text = text.replace(str(number), f"number {place}")
                return text

            return {
                name: [
                    tuple(open_(value) for value in row)
                    for row in connection.execute(query.encode(), (tenant_id,)).fetchall()
                ]
                for name, query in {
                    "invoices": "SELECT period_start, sequence, status, kind, origin, currency, subtotal, tax, total,"
                    " credits_applied, issued_at, due_at, paid_at, engine_version, reason,"
                    " snapshot - 'invoice' - 'bill_to' - 'transfer' - 'annex' FROM invoices WHERE tenant_id = %s"
                    " ORDER BY period_start, sequence",
                    "lines": "SELECT position, charge_id, line.kind, meter_id, dimensions, quantity, unit_amount,"
                    " exact_amount, amount, price_digest, evidence - 'usage_digest' - 'billed_before',"
                    " corrects_invoice IS NULL, settles, tax_treatment, tax_amount FROM invoice_lines AS line"
                    " JOIN invoices USING (invoice_id) WHERE tenant_id = %s"
                    " ORDER BY invoices.period_start, sequence, position",
                    "taxes": "SELECT sequence, category, rate, place, base, invoice_taxes.tax FROM invoice_taxes"
                    " JOIN invoices USING (invoice_id) WHERE tenant_id = %s ORDER BY 1, 2, 3, 4",
                    "ledger": "SELECT account, currency, sum(debit), sum(credit) FROM ledger_postings"
                    " WHERE tenant_id = %s GROUP BY 1, 2 ORDER BY 1, 2",
                    "outbox": "SELECT topic FROM outbox WHERE key = %s ORDER BY outbox_id",
                }.items()
            }


def request_of(tenant_id: str, period: str) -> InvoicingRequest:
    return InvoicingRequest(tenant_id=tenant_id, period=period, run_id="run", requested_at="")


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    await apply_files(settings, shipped_files())
    async with opened(settings) as found:
        yield found


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Desk]:
    usage = ClickHouseUsage(settings)
    async with create_pool(settings, max_size=4) as pool:
        try:
            # Other tests of the folder put rows of their own making into the books.
            before = await _faults(pool)
            yield Desk(settings, pool, usage)
            assert await _faults(pool) <= before, "a number is missing or stands twice, or the ledger is not the books'"
        finally:
            await usage.close()


async def _faults(pool: Pool) -> set[str]:
    numbers, ledger = await check_numbers(PostgresNumbers(pool)), await check_ledger(PostgresAudit(pool))
    return {*numbers.faults, *ledger.faults}


async def tenant(desk: Desk, plan: str, *used: tuple[str, str, dict[str, str]], credit: str = "") -> str:
    tenant_id = await subscribe(desk.settings, plan)
    for meter, quantity, dimensions in used:
        use(desk.settings, tenant_id, meter, quantity, "2026-10-07T10:15", **dimensions)
    if credit:
        async with desk.pool.connection() as connection:
            grant = CreditGrant(
                f"cred_{uuid4().hex}", tenant_id, CreditKind.PAID, Decimal(credit), "USD",
                at("2026-10-01"), at("2026-10-01"),
            )  # fmt: skip
            await PostgresCreditLedger(connection).add_grant(grant)
    return tenant_id


TOKENS = ("llm_input_tokens", "1234567", {"model": "gpt4"})
CPU = ("cpu", "100.5", {})


@pytest.mark.integration
async def test_together_is_what_each_gets_alone(desk: Desk) -> None:
    kinds: dict[str, tuple[tuple[Any, ...], str]] = {
        "lite": ((CPU, TOKENS), ""),
        "shared": (((*TOKENS[:2], {"model": "unheard-of"}), TOKENS), ""),
        "zero": ((("agent_executions", "12", {"agent_type": "planner"}),), ""),
        "enterprise": ((CPU,), ""),
        "airgapped": ((), ""),
    }
    alone = [await tenant(desk, plan, *used, credit=credit) for plan, (used, credit) in kinds.items()]
    beside = [await tenant(desk, plan, *used, credit=credit) for plan, (used, credit) in kinds.items()]
    for one in alone:
        await desk.alone(one)
    done = await desk.together(beside)
    assert done.alone == ()
    for one, other in zip(alone, beside, strict=True):
        assert desk.rows(one) == desk.rows(other)
    # 99 + 100.5 × 0.05 (5.025) + 1,234.567 × 0.030 (37.037)
    assert [invoice.total for invoice in done.invoices[beside[0]]] == [Decimal("141.07")]

    # Again: nothing new. Then more usage, which both bill as what came after.
    again = await desk.together(beside)
    assert (again.alone, [one for found in again.invoices.values() for one in found]) == ((), [])
    for one in (alone[0], beside[0]):
        use(desk.settings, one, "cpu", "10", "2026-10-09T10:15")
    await desk.alone(alone[0])
    [late] = (await desk.together(beside)).invoices[beside[0]]
    assert (late.draft.sequence, late.total) == (2, Decimal("0.50"))  # 10 × 0.05
    assert desk.rows(alone[0]) == desk.rows(beside[0])


@pytest.mark.integration
async def test_who_has_anything_out_of_the_ordinary_is_left_for_alone(desk: Desk) -> None:
    plain, credited, parked, less = [
        await tenant(desk, "lite", CPU),
        await tenant(desk, "lite", CPU, credit="20"),
        await tenant(desk, "lite", CPU),
        await tenant(desk, "lite", CPU),
    ]
    await desk.alone(less)
    # A correction took usage out again: 50 vCPU-hours less.
    use(desk.settings, less, "cpu", "-50", "2026-10-07T10:15", segment=1)
    with psycopg.connect(desk.settings.postgres) as connection:
        connection.execute(
            "UPDATE tenants SET parked_reason = 'looked at', parked_at = now() WHERE tenant_id = %s", (parked,)
        )
    done = await desk.together([plain, credited, parked, less, "nobody"])
    assert set(done.invoices) == {plain}
    assert done.alone == (credited, parked, less, "nobody")
    for one in (credited, parked, less, plain):
        await desk.alone(one)
    assert [len(desk.rows(one)["invoices"]) for one in (plain, credited, parked, less)] == [1, 1, 0, 2]
    assert desk.rows(credited)["invoices"][0][9] == Decimal(20)


@pytest.mark.integration
async def test_what_fails_after_a_number_was_taken_takes_everybody_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = [await tenant(desk, "lite", CPU) for _ in range(3)]
    build = issue_document.build_snapshot

    def broken(draft: Any, **given: Any) -> Any:
        if given["buyer"].tenant_id == tenants[1]:
            raise RuntimeError("no snapshot")
        return build(draft, **given)

    monkeypatch.setattr(issue_document, "build_snapshot", broken)
    with pytest.raises(RuntimeError, match="no snapshot"):
        await desk.together(tenants)
    assert [desk.rows(one)["invoices"] for one in tenants] == [[], [], []]
    # Before a number is taken only the one at fault is left out.
    monkeypatch.setattr(issue_document, "build_snapshot", build)
    targets = module.targets_of

    async def failing(account: Any, *given: Any) -> Any:
        if account.buyer.tenant_id == tenants[1]:
            raise ValueError("no targets")
        return await targets(account, *given)

    monkeypatch.setattr(module, "targets_of", failing)
    done = await desk.together(tenants)
    assert (sorted(done.invoices), done.alone) == (sorted([tenants[0], tenants[2]]), (tenants[1],))


@pytest.mark.integration
async def test_two_who_invoice_the_same_tenants_at_once_bill_each_once(desk: Desk) -> None:
    tenants = [await tenant(desk, "lite", CPU) for _ in range(6)]
    both = await asyncio.gather(desk.together(tenants), desk.together(reversed(tenants)), desk.alone(tenants[3]))
    billed = [one for done in both[:2] for found in done.invoices.values() for one in found] + both[2]
    assert sorted(one.tenant_id for one in billed) == sorted(tenants)
    assert [len(desk.rows(one)["invoices"]) for one in tenants] == [1] * 6


@pytest.mark.integration
async def test_twenty_tenants_cost_no_more_questions_than_five(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = [0]
    execute = psycopg.AsyncCursor.execute

    async def counted(self: Any, *given: Any, **named: Any) -> Any:
        asked[0] += 1
        return await execute(self, *given, **named)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
    counts = []
    for size in (5, 20):
        tenants = [await tenant(desk, "lite", CPU) for _ in range(size)]
        asked[0] = 0
        assert len((await desk.together(tenants)).invoices) == size
        counts.append(asked[0])
    assert counts[0] == counts[1] <= 25


def test_a_tenants_second_request_waits_for_its_first() -> None:
    values = [encode_message(request_of(one, period)) for one, period in (("a", "2026-09"), ("b", "2026-09"))]
    first, left = first_of_tenants([*values, b"not json", encode_message(request_of("a", "2026-10")), None])
    assert [(place, one.tenant_id) for place, one in first.items()] == [(0, "a"), (1, "b")]
    assert left == [2, 3, 4]


async def test_questions_of_the_same_moment_are_asked_once_and_none_is_remembered() -> None:
    asked: list[list[int]] = []

    async def ask(questions: Any) -> list[int]:
        asked.append(list(questions))
        return [2 * one for one in questions]

    load = asked_once(ask)
    assert await asyncio.gather(*(load(number) for number in (3, 1, 3))) == [6, 2, 6]
    assert await load(3) == 6
    assert asked == [[3, 1, 3], [3]]
