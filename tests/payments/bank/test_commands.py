"""`meterbook bank` as people and programs see it: import, proposals, confirm, reject, status on the real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from core.errors import InvalidInputError
from payments.bank.commands import create_app
from runtime.processes.bank import create_app as create_shipped_app
from runtime.settings import Settings
from tests.payments.bank.scene import Scene
from tests.payments.bank.write_statements import write_csv, write_mt940

pytestmark = pytest.mark.integration


@pytest.fixture
def run(scene: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))
    monkeypatch.setenv("METERBOOK_WIRE_FEE_TOLERANCE", "EUR:10,USD:25")
    app = create_app(lambda _: [scene.account])

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return invoke


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


async def test_from_a_file_to_a_paid_invoice(scene: Scene, run: Any, tmp_path: Path) -> None:
    tenant = await scene.tenant("Zephyr Ltd")
    number = await scene.invoice(tenant, "1190.00")
    file = tmp_path / "october.sta"
    paid = scene.told("1185.00", f"Invoice {number}", payer="ZEPHYR LIMITED")
    file.write_bytes(write_mt940(scene.statement(paid, scene.told("-1.50", "fee"))))

    def invoke(*arguments: str) -> Any:
        return asyncio.to_thread(run, *arguments)

    told = ok(await invoke("import", str(file)))
    assert "2 of 2 entries are new" in told
    assert "2,183.50 EUR" in told  # 1 000.00 + 1 185.00 - 1.50
    assert "imported before, nothing new" in ok(await invoke("import", str(file)))
    (entry,) = [
        row["entry_id"]
        for row in await scene.rows(
            "SELECT entry_id FROM bank_entries WHERE account_id = %s AND amount > 0", scene.account.account_id
        )
    ]
    shown = ok(await invoke("proposals", entry))
    assert "short by fees" in shown
    assert f"{number}  1,185.00 EUR + 5.00 fees" in shown
    (listed,) = json.loads(ok(await invoke("proposals", entry[:12], "--json")))
    best = listed["proposals"][0]
    # number 60 + short 20 + name 20
    assert (best["score"], best["invoices"][0]["fee"]) == (100, "5.00")
    done = json.loads(ok(await invoke("confirm", entry[:12], "--proposed", "--by", "ada", "--json")))
    (made,) = done["allocations"]
    assert (done["left"], made["fee"], made["confirmed_by"]) == ("0.00", "5.00", "ada")
    await scene.deliver()
    assert await scene.invoice_state(number) == ("paid", Decimal("1190.00"), Decimal(0))
    again = await invoke("confirm", entry, "--proposed")
    assert again.exit_code == 1
    assert again.exception.code == "already_confirmed"
    (account,) = [
        one for one in json.loads(ok(await invoke("status", "--json"))) if one["account_id"] == scene.account.account_id
    ]
    assert (account["gap"], account["open_entries"], account["balance"]) == ("0.00", 0, "2183.50")
    assert scene.account.account_id in ok(await invoke("status"))


async def test_csv_by_a_profile_of_ones_own_and_rejecting(scene: Scene, run: Any, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    shipped = Path(__file__).parents[3] / "payments" / "bank" / "profiles" / "de-semicolon.yaml"
    profile.write_text(
        shipped.read_text().replace("DE89370400440532013000", f"37040044/{scene.account.account_number}")
    )
    file = tmp_path / "umsatz.csv"
    file.write_bytes(write_csv(scene.statement(scene.told("12.00", "Zinsen"))))
    refused = await asyncio.to_thread(run, "import", str(file))
    assert [fault.code for fault in refused.exception.faults] == ["unknown_format"]
    document = json.loads(ok(await asyncio.to_thread(run, "import", str(file), "--profile", str(profile), "--json")))
    (entry,) = document["statements"][0]["new_entries"]
    assert (entry["amount"], entry["left"], entry["status"]) == ("12.00", "12.00", "open")
    no_reason = await asyncio.to_thread(run, "reject", entry["entry_id"])
    assert no_reason.exception.faults[0].code == "missing_reason"
    assert "rejected" in ok(await asyncio.to_thread(run, "reject", entry["entry_id"], "--reason", "interest"))
    assert "waits again" in ok(await asyncio.to_thread(run, "reject", entry["entry_id"], "--undo"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["confirm", "bent_x", "--invoice", "A", "--amount", "1", "--amount", "2"], "invalid_amount"),
        (["confirm", "bent_x", "--invoice", "A", "--amount", "1e99"], "invalid_amount"),
        (["confirm", "bent_x", "--invoice", "A", "--amount", "NaN"], "invalid_amount"),
        (["confirm", "bent_x", "--invoice", "A", "--proposed"], "contradiction"),
        (["confirm", "bent_x", "--returns", "bent_y", "--rest", "credit"], "contradiction"),
        (["confirm", "bent_x", "--rest", "spent"], "invalid_rest"),
        (["import", "/nowhere/at/all.sta"], "unreadable_file"),
        (["import", __file__, "--profile", "/nowhere.yaml"], "unreadable_file"),
        (["import", __file__, "--format", "pdf"], "unknown_format"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Any, arguments: list[str], code: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, InvalidInputError)
    assert [fault.code for fault in result.exception.faults] == [code]


def test_the_sellers_accounts_are_the_commands(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))
    file = tmp_path / "x.sta"
    file.write_bytes(b":20:A\n:25:4711\n:28C:1\n:60F:C261001EUR1,00\n:62F:C261002EUR1,00\n")
    result = CliRunner().invoke(create_shipped_app(), ["import", str(file)])
    assert [fault.code for fault in result.exception.faults] == ["unknown_account"]
