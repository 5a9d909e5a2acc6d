"""`meterbook invoice …` on the real engines: the life of one invoice by command, every one done twice."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.errors import MeterbookError
from invoicing.commands import app
from invoicing.life_commands import read_item, read_line
from runtime.clickhouse import INSERT_SETTINGS, connect_clickhouse
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.invoicing.scene import at

_ROLLUP = [
    "tenant", "meter", "dimensions", "window_start", "source_partition", "segment", "quantity", "events", "version",
]  # fmt: skip


def use(settings: Settings, tenant: str, quantity: str, version: int) -> None:
    """Let this be October's CPU; a higher version takes the place of a lower one."""
    client = connect_clickhouse(settings)
    row = [tenant, "cpu", {}, at("2025-10-10T10:00"), 0, 0, Decimal(quantity), 1, version]
    client.insert("usage_rollups", [row], column_names=_ROLLUP, settings=INSERT_SETTINGS)
    client.close()


@pytest.mark.integration
def test_the_life_of_an_invoice_by_command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))
    tenant_id = f"cli-{uuid4().hex[:10]}"
    asyncio.run(apply_files(settings, shipped_files()))
    tenant = Tenant(tenant_id, "Acme", "billing@example.com", "DE", "USD", "1 Road\nTown")
    asyncio.run(add_tenant(settings, tenant, "lite", overrides={}, started_at=at("2025-10-01")))

    def ask(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    period = ("--tenant", tenant_id, "--period", "2025-10")
    use(settings, tenant_id, "1000", 1)
    (tried,) = ask("run", *period, "--dry-run")
    # 99.00 + 1,000 × 0.05
    assert (tried["documents"], tried["subtotal"], tried["left_out"]) == (1, "149.00", None)
    (invoice,) = ask("now", *period)
    assert (invoice["total"], invoice["status"]) == ("149.00", "finalized")
    assert ask("now", *period) == []
    assert ask("run", *period, "--dry-run")[0]["documents"] == 0

    use(settings, tenant_id, "600", 2)
    shown = ask("show", invoice["number"], "--now")
    cpu = next(one for one in shown["items_now"] if one["description"] == "CPU")
    assert (cpu["billed"], cpu["owed"], cpu["difference"]) == ("50.00", "30.00", "-20.00")
    assert shown["snapshot"]["total"] == "149.00", "as known then"
    (note,) = ask("now", *period)
    assert (note["kind"], note["total"]) == ("credit_note", "-20.00")

    by_hand = ("credit", invoice["number"], "--reason", "sorry", "--amount", "9.00")
    (goodwill,) = ask(*by_hand)
    assert ask(*by_hand) == [goodwill], "the same command twice is one document"
    taken, anew = ask("reissue", invoice["number"], "--reason", "address")
    # 149 - 20 - 9 are taken back; owed are 129, of which 9.00 stay given back.
    assert (taken["total"], anew["total"], anew["replaces"]) == ("-120.00", "120.00", invoice["invoice_id"])
    assert [one["number"] for one in ask("reissue", invoice["number"], "--reason", "address")] == [
        taken["number"], anew["number"],
    ]  # fmt: skip
    (sold,) = ask("one-time", "--tenant", tenant_id, "--item", "Setup:99.90", "--item", "Hours:80:2.5:hour")
    assert sold["total"] == "299.90"
    (gone,) = ask("write-off", anew["number"], "--reason", "insolvent")
    assert gone["status"] == "uncollectible"
    (void,) = ask("void", sold["number"], "--reason", "not ordered")
    assert (void["status"], void["amount_due"]) == ("void", "0.00")
    assert ask("finalize") == {"issued": [], "dropped": [], "parked": []}
    assert ask("numbers", "--check")["faults"] == []
    assert ask("now", *period) == []

    asyncio.run(_park(settings, tenant_id))
    assert next(one for one in ask("parked") if one["tenant_id"] == tenant_id)["reason"] == "look at it"
    assert ask("run", *period, "--dry-run")[0]["left_out"] == "parked: look at it"
    assert CliRunner().invoke(app, ["unpark", tenant_id], catch_exceptions=False).exit_code == 0
    assert tenant_id not in [one["tenant_id"] for one in ask("parked")]
    for arguments in (["show", anew["number"]], ["show", invoice["number"], "--now"], ["numbers"], ["parked"]):
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert (result.exit_code, result.stdout != "") == (0, True), arguments

    asyncio.run(_lose(settings, anew["number"]))
    broken = CliRunner().invoke(app, ["numbers", "--check"])
    assert (broken.exit_code, "was given out and stands on no document" in broken.stdout) == (1, True)
    asyncio.run(_lose(settings, anew["number"], back=True))


async def _park(settings: Settings, tenant_id: str) -> None:
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection:
        query = "UPDATE tenants SET parked_reason = 'look at it', parked_at = now() WHERE tenant_id = %s"
        await connection.execute(query, (tenant_id,))


async def _lose(settings: Settings, number: str, *, back: bool = False) -> None:
    """Let a number be on no document, by a hand that nothing should have let in."""
    lost = f"lost-{number}"
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection:
        names = (number, lost) if back else (lost, number)
        await connection.execute("UPDATE invoices SET number = %s WHERE number = %s", names)


@pytest.mark.parametrize("text", ["Setup", "Setup:much", "Setup:1:2:3:4", ":1:x"])
def test_an_item_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises((MeterbookError, typer.BadParameter)):
        read_item(text)


@pytest.mark.parametrize("text", ["", "x", "1=x", "-1", "1234567"])
def test_a_line_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(MeterbookError):
        read_line(text)
