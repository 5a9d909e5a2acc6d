"""Tax as it lies in PostgreSQL: what was decided of each line, the groups, the frozen rate, and VIES' answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from typer.testing import CliRunner

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import ManualClock
from core.errors import InvalidInputError, NotFoundError
from core.messages import InvoicingRequest
from invoicing import vat_worker
from invoicing.adapters.postgres_archive import PostgresArchive
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_vat_checks import PostgresVatChecks
from invoicing.adapters.vies import Vies
from invoicing.check_vat_numbers import RECHECK_AFTER, check_vat_numbers
from invoicing.domain.invoice import Invoice
from invoicing.domain.stored_invoice import LineReference
from invoicing.domain.tax.taxed_lines import Bucket, TaxedBefore
from invoicing.invoice_period import invoice_period
from invoicing.tax_commands import app as tax_app
from invoicing.terms import Terms
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings, load_settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.commands import add_tenant, change_tenant
from subscriptions.domain.tenant import Tenant
from tests.invoicing.memory import MemoryUsage
from tests.invoicing.scene import TERMS, at
from tests.invoicing.tax.taxing import BERLIN_WITH_SHOP, tables
from tests.invoicing.tax.test_tax_stories import RATES
from tests.standins.vies_server import ViesStandIn

pytestmark = pytest.mark.integration
NOW = at("2026-11-03")


@dataclass
class Books:
    """Acme on the lite tier, billed by a German seller; usage in memory, all else in PostgreSQL."""

    settings: Settings
    pool: Pool
    tenant_id: str
    usage: MemoryUsage
    terms: Terms
    clock: ManualClock

    async def bill(self) -> list[Invoice]:
        request = InvoicingRequest(
            tenant_id=self.tenant_id, period="2026-10", run_id="run", requested_at="2026-11-03T00:00:00Z"
        )
        books = PostgresBooks(self.pool)
        return await invoice_period(request, books=books, usage=self.usage, terms=self.terms, clock=self.clock)

    async def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return await (await connection.execute(query.encode(), values)).fetchall()


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Books]:
    await apply_files(settings, shipped_files())
    tenant_id = f"taxed-{uuid4().hex[:10]}"
    tenant = Tenant(tenant_id, "Acme", "billing@example.com", "FI", "USD", "1 Road\nTown", is_business=False)
    await add_tenant(settings, tenant, "lite", overrides={}, started_at=at("2026-10-01"))
    seller = replace(TERMS.seller, tax=BERLIN_WITH_SHOP, number_prefix=f"T{uuid4().hex[:6].upper()}")
    terms = replace(TERMS, seller=seller, tables=tables(), exchange=RATES)
    async with create_pool(settings, max_size=2) as pool:
        yield Books(settings, pool, tenant_id, MemoryUsage(), terms, ManualClock(NOW))


async def test_lines_groups_and_the_frozen_rate_are_stored_and_add_up(books: Books) -> None:
    books.usage.add(books.tenant_id, "agent_executions", 120_000, at("2026-10-10T10:00"))
    (invoice,) = await books.bill()
    invoice_id = invoice.draft.invoice_id
    (stored,) = await books.rows(
        "SELECT subtotal, tax, total, exchange_rate, exchange_currency, exchange_tax FROM invoices"
        " WHERE invoice_id = %s",
        invoice_id,
    )
    # 109.00 x 25.5 % = 27.795 -> 27.80; in euro at 0.8: 22.24
    assert stored == {
        "subtotal": Decimal("109.00"),
        "tax": Decimal("27.80"),
        "total": Decimal("136.80"),
        "exchange_rate": Decimal("0.8"),
        "exchange_currency": "EUR",
        "exchange_tax": Decimal("22.24"),
    }
    assert await books.rows(
        "SELECT category, rate, place, kind, base, tax FROM invoice_taxes WHERE invoice_id = %s", invoice_id
    ) == [
        {
            "category": "S",
            "rate": Decimal("25.5"),
            "place": "FI",
            "kind": "vat",
            "base": Decimal("109.00"),
            "tax": Decimal("27.80"),
        }
    ]
    (lines,) = await books.rows(
        "SELECT sum(tax_amount) AS tax, min(tax_rate) AS rate, max(tax_category) AS category FROM invoice_lines"
        " WHERE invoice_id = %s",
        invoice_id,
    )
    assert lines == {"tax": Decimal("27.80"), "rate": Decimal("25.5"), "category": "S"}
    archive = PostgresArchive(books.pool)
    (found,) = await archive.invoices(LineReference(invoice.number))
    assert [line.treatment for _, line in found.lines] == [line.treatment for line in invoice.draft.lines]
    assert [line.tax_amount for _, line in found.lines] == [line.tax_amount for line in invoice.draft.lines]


async def test_what_is_taken_back_lowers_the_tax_of_the_invoice_it_was_charged_on(books: Books) -> None:
    books.usage.add(books.tenant_id, "agent_executions", 120_000, at("2026-10-10T10:00"))
    (first,) = await books.bill()
    await change_tenant(books.settings, books.tenant_id, {"country": "DE"})
    books.usage.hours.clear()
    books.clock.travel_to(NOW + timedelta(days=1))
    (note,) = await books.bill()
    # Left: 99.00 x 25.5 % = 25.245 -> 25.25; 27.80 - 25.25 = 2.55 goes back, at Finland's rate.
    assert (note.draft.subtotal, note.tax) == (Decimal("-10.00"), Decimal("-2.55"))
    origins = await books.rows(
        "SELECT DISTINCT tax_origin FROM invoice_lines WHERE invoice_id = %s", note.draft.invoice_id
    )
    assert origins == [{"tax_origin": first.draft.invoice_id}]
    async with PostgresBooks(books.pool).view_account(books.tenant_id) as account:
        assert account is not None
        known = await account.taxed_before([first.draft.invoice_id])
    (treatment, *_) = [line.treatment for line in first.draft.lines]
    assert treatment is not None
    bucket = Bucket(first.draft.invoice_id, treatment.group, treatment.behavior)
    assert known == {bucket: TaxedBefore(Decimal("99.00"), Decimal("25.25"))}
    assert await books.bill() == []


async def test_an_undetermined_tax_parks_the_account_and_uses_no_number(books: Books) -> None:
    await change_tenant(books.settings, books.tenant_id, {"country": "ES"})
    assert await books.bill() == []
    (row,) = await books.rows("SELECT parked_reason FROM tenants WHERE tenant_id = %s", books.tenant_id)
    assert "unknown_place" in row["parked_reason"]
    series = f"{books.terms.seller.number_prefix}-2026"
    assert await books.rows("SELECT 1 FROM invoice_series WHERE series = %s", series) == []


async def test_particulars_are_kept_and_changed_and_a_changed_number_is_unchecked(books: Books) -> None:
    await change_tenant(
        books.settings,
        books.tenant_id,
        {"country": "FR", "is_business": True, "vat_number": "fr 40 303 265 045", "postal_code": "75002"},
    )
    await PostgresVatChecks(books.pool).record(books.tenant_id, await _answer(books, NOW))
    async with books.pool.connection() as connection:
        tenant = await PostgresSubscriptionStore(connection).tenant(books.tenant_id)
    assert tenant is not None
    assert (tenant.vat_number, tenant.postal_code, tenant.is_business) == ("FR40303265045", "75002", True)
    await change_tenant(books.settings, books.tenant_id, {"name": "Acme SA"})
    assert await _checked(books) == {"vat_valid": True, "vat_checked_at": NOW}
    await change_tenant(books.settings, books.tenant_id, {"vat_number": ""})
    assert await _checked(books) == {"vat_valid": None, "vat_checked_at": None}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"vat_number": "DE136695976"}, "vat_number_of_another_country"),
        ({"vat_number": "FI1"}, "malformed_vat_number"),
        ({"vat_number": "FI20774740"}, "vat_number_of_consumer"),
        ({"country": "US", "state": "ZZ"}, "unknown_state"),
        ({"country": "Finland"}, "invalid_country"),
        ({"postal_code": "<b>"}, "invalid_postal_code"),
        ({"tax_exempt_code": "VATEX-EU-151"}, "missing_field"),
        ({"tax_exempt": "x", "tax_exempt_code": "because"}, "invalid_exemption_code"),
        ({"language": "fr"}, "unknown_language"),
        ({"currency": "EUR"}, "unchangeable_field"),
        ({"vat_valid": True}, "unknown_field"),
        ({"is_business": "yes"}, "invalid_type"),
    ],
)
async def test_wrong_particulars_are_refused_and_change_nothing(
    books: Books, changes: dict[str, object], code: str
) -> None:
    before = await books.rows("SELECT * FROM tenants WHERE tenant_id = %s", books.tenant_id)
    with pytest.raises(InvalidInputError) as refused:
        await change_tenant(books.settings, books.tenant_id, changes)
    assert code in {fault.code for fault in refused.value.faults}
    assert await books.rows("SELECT * FROM tenants WHERE tenant_id = %s", books.tenant_id) == before


async def test_an_unknown_tenant_cannot_be_changed(books: Books) -> None:
    with pytest.raises(NotFoundError):
        await change_tenant(books.settings, "nobody", {"name": "X"})


async def test_every_answer_of_vies_is_kept_and_the_last_one_counts(books: Books) -> None:
    await change_tenant(
        books.settings, books.tenant_id, {"country": "FR", "is_business": True, "vat_number": "FR40303265045"}
    )
    server, checks = ViesStandIn(), PostgresVatChecks(books.pool)
    await server.start()
    vies = Vies(server.url)
    try:
        mine = (books.tenant_id, "FR40303265045")
        for valid, later in ((True, 0), (False, 40)):
            if valid:
                server.valid["FR40303265045"] = ("ACME SA", "PARIS")
            else:
                server.valid.clear()
            books.clock.travel_to(NOW + timedelta(days=later))
            assert mine in await checks.due(before=books.clock.now() - RECHECK_AFTER)
            server.faults.add({"kind": "ms_unavailable"})
            for _ in range(2):
                found = await check_vat_numbers(
                    [mine], register=vies, checks=checks, requester="DE136695976", clock=books.clock
                )
            assert found[0].answer is not None
            assert found[0].answer.valid is valid
            assert await _checked(books) == {"vat_valid": valid, "vat_checked_at": books.clock.now()}
            assert mine not in await checks.due(before=books.clock.now() - RECHECK_AFTER)
        # An answer that was slow, about an older question, does not come to count.
        assert not await checks.record(books.tenant_id, replace(await _answer(books, NOW), checked_at=NOW))
        assert (await _checked(books))["vat_valid"] is False
    finally:
        await vies.close()
        await server.stop()
    kept = await books.rows(
        "SELECT valid, consultation <> '' AS proven, name FROM vat_checks WHERE tenant_id = %s ORDER BY checked_at",
        books.tenant_id,
    )
    assert kept == [
        {"valid": True, "proven": True, "name": "ACME SA"},
        {"valid": False, "proven": False, "name": ""},
    ]
    with pytest.raises(psycopg.Error):
        await books.rows("DELETE FROM vat_checks WHERE tenant_id = %s RETURNING 1", books.tenant_id)


async def _answer(books: Books, when: datetime) -> Any:
    server = ViesStandIn()
    server.valid["FR40303265045"] = ("ACME SA", "PARIS")
    await server.start()
    vies = Vies(server.url)
    try:
        return await vies.check("FR40303265045", "DE136695976", when)
    finally:
        await vies.close()
        await server.stop()


async def _checked(books: Books) -> dict[str, Any]:
    rows = await books.rows("SELECT vat_valid, vat_checked_at FROM tenants WHERE tenant_id = %s", books.tenant_id)
    return rows[0]


SELLER = """name: Beispiel GmbH
address: [Am Platz 1, 10115 Berlin]
country: DE
email: a@b.example
tax_id: DE136695976
number_prefix: BE
payment_terms: Bald.
footer: Danke
tax:
  regime: registered
  currency: EUR
  registrations: [{country: DE, number: DE136695976}]
"""


@pytest.fixture
async def vies_at(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settings]:
    """Settings of a seller that charges tax, beside a VIES that knows Acme's number; also in the environment."""
    await change_tenant(
        books.settings, books.tenant_id, {"country": "FR", "is_business": True, "vat_number": "FR40303265045"}
    )
    server = ViesStandIn()
    server.valid["FR40303265045"] = ("ACME SA", "PARIS")
    await server.start()
    seller = tmp_path / "seller.yaml"
    seller.write_text(SELLER)
    for name, value in (("HOME", books.settings.home), ("SELLER_FILE", seller), ("VIES_URL", server.url)):
        monkeypatch.setenv(f"METERBOOK_{name}", str(value))
    yield load_settings()
    await server.stop()


async def test_the_worker_asks_about_numbers_that_nobody_asked_about(books: Books, vies_at: Settings) -> None:
    stop = asyncio.Event()
    working = asyncio.create_task(vat_worker.run(vies_at, stop))
    async with asyncio.timeout(30):
        while (await _checked(books))["vat_valid"] is None:
            await asyncio.sleep(0.05)
        stop.set()
        await working
    assert (await _checked(books))["vat_valid"] is True


async def test_a_person_can_ask_at_once_and_sees_the_proof(books: Books, vies_at: Settings) -> None:
    command = ["check-vat", "--tenant", books.tenant_id, "--json"]
    ran = await asyncio.to_thread(CliRunner().invoke, tax_app, command)
    assert ran.exit_code == 0, ran.output
    (found,) = json.loads(ran.stdout.splitlines()[-1])
    assert (found["valid"], found["name"]) == (True, "ACME SA")
    assert found["consultation"].startswith("WAPIAAAA")
    assert (await _checked(books))["vat_valid"] is True
