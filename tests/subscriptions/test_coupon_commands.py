"""`meterbook coupon` and `meterbook credits` on the real store: what people see, what programs read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from core.errors import InvalidInputError, NotFoundError
from rating.domain.credit import Due
from rating.draw_credits import draw_credits
from runtime.processes.worker_table import load_consumers
from runtime.settings import Settings
from subscriptions.coupon_commands import app as coupons
from subscriptions.credit_commands import app as credits
from subscriptions.grant_credit import grant_credit
from tests.subscriptions.coupon_scene import CouponScene, open_scene

pytestmark = pytest.mark.integration

Call = Callable[..., str]


@pytest.fixture
def call(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr("subscriptions.coupon_commands.load_settings", lambda: settings)
    monkeypatch.setattr("subscriptions.credit_commands.load_settings", lambda: settings)

    def run(app: typer.Typer, *words: str) -> str:
        return CliRunner().invoke(app, words, catch_exceptions=False).stdout

    return run


@pytest.fixture
def scene(settings: Settings) -> CouponScene:
    async def settle() -> CouponScene:
        async with open_scene(settings) as opened:
            return opened

    return asyncio.run(settle())


def read(text: str) -> Any:
    return json.loads(text)


def draw(settings: Settings, scene: CouponScene, invoice: str, amount: str) -> None:
    async def work() -> None:
        async with open_scene(settings) as opened, opened.ledger() as ledger:
            dues = [Due("coupon-pro", None, Decimal(amount))]
            now = datetime.now(UTC)
            await draw_credits(scene.tenant_id, invoice, dues, "USD", ledger=ledger, at=now)

    asyncio.run(work())


def test_a_coupon_is_offered_redeemed_shown_removed_and_archived(call: Call, scene: CouponScene) -> None:
    coupon = scene.coupon_id
    terms = ("--percent-off", "20", "--duration", "repeating", "--duration-in-periods", "3", "--plan", "coupon-pro")
    assert call(coupons, "create", coupon, *terms) == f"{coupon} v1: 20 % 3 periods\n"
    assert call(coupons, "create", coupon, *terms) == f"{coupon} v1: 20 % 3 periods (as before)\n"
    redeemed = read(call(coupons, "redeem", coupon, scene.tenant_id, "--json"))
    assert (redeemed["subscription_id"], redeemed["new"]) == (scene.subscription_id, True)
    assert call(coupons, "redeem", coupon, scene.tenant_id).endswith("(as before)\n")
    shown = read(call(coupons, "show", coupon, "--json"))
    assert [(each["version"], each["redeemed"], each["status"]) for each in shown["versions"]] == [(1, 1, "offered")]
    assert [each["redemption_id"] for each in shown["redemptions"]] == [redeemed["redemption_id"]]
    text = call(coupons, "show", coupon)
    assert all(word in text for word in ("20 % 3 periods", "plan coupon-pro", scene.tenant_id, "offered"))
    assert coupon in call(coupons, "list")
    assert call(coupons, "remove", coupon, scene.tenant_id) == f"{scene.tenant_id}: {coupon} removed\n"
    assert read(call(coupons, "remove", coupon, scene.tenant_id, "--json"))["new"] is False
    assert call(coupons, "archive", coupon) == f"{coupon} v1: archived\n"
    assert read(call(coupons, "archive", coupon, "--json"))["new"] is False
    assert coupon not in call(coupons, "list")
    statuses = {each["coupon_id"]: each["status"] for each in read(call(coupons, "list", "--all", "--json"))}
    assert statuses[coupon] == "archived"
    again = read(call(coupons, "create", coupon, "--amount-off", "5", "--currency", "USD", "--json"))
    assert (again["version"], again["amount_off"], again["new"]) == (2, "5.00", True)


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["create", "C", "--percent-off", "200", "--duration", "x"], ["duration", "percent_off"]),
        (["create", "C", "--amount-off", "5"], ["currency"]),
        (["create", "C", "--percent-off", "5", "--plan", "platinum"], ["plans"]),
        (["redeem", "C", "T", "--from", "soon"], ["starts_at"]),
    ],
)
def test_what_coupon_refuses(call: Call, words: list[str], paths: list[str]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        call(coupons, *words)
    assert [fault.path for fault in refused.value.faults] == paths
    for command in (["show", "nothing"], ["redeem", "nothing", "nobody"], ["archive", "nothing"]):
        with pytest.raises(NotFoundError):
            call(coupons, *command)


def test_a_credit_is_granted_drawn_refunded_voided_and_told_of(
    call: Call, scene: CouponScene, settings: Settings
) -> None:
    tenant = scene.tenant_id
    assert call(credits, "balance", tenant) == f"{tenant}: no credits\n"
    assert call(credits, "history", tenant) == f"{tenant}: no entries\n"
    paid = read(call(credits, "grant", tenant, "100", "--key", "k", "--reason", "prepaid [2026]", "--json"))
    assert (paid["amount"], paid["kind"], paid["new"]) == ("100.00", "paid", True)
    assert call(credits, "grant", tenant, "100", "--key", "k", "--reason", "prepaid [2026]").endswith("(as before)\n")
    given = read(call(credits, "grant", tenant, "20", "--kind", "promotional", "--meter", "coupon-cpu", "--json"))
    draw(settings, scene, f"inv-{scene.tag}", "60.00")
    document = read(call(credits, "balance", tenant, "--json"))
    assert document["totals"] == {"USD": {"balance": "60.00", "available": "60.00"}}
    assert [(each["credit_id"], each["balance"], each["status"]) for each in document["credits"]] == [
        (given["credit_id"], "20.00", "in effect"),
        (paid["credit_id"], "40.00", "in effect"),
    ]
    text = call(credits, "balance", tenant)
    assert "prepaid [2026]" in text
    assert f"{tenant}: 60.00 USD left, 60.00 of it can be drawn" in text
    refunded = read(call(credits, "refund", paid["credit_id"], "15", "--key", "r", "--json"))
    assert (refunded["amount"], refunded["balance_after"]) == ("-15.00", "25.00")
    assert "25.00 USD refunded, 0.00 left" in call(credits, "refund", paid["credit_id"])
    assert call(credits, "void", given["credit_id"]) == f"{given['credit_id']}: void, 20.00 USD taken back\n"
    assert call(credits, "void", given["credit_id"]).endswith("void (as before)\n")
    history = read(call(credits, "history", tenant, "--json"))
    assert [(each["kind"], each["amount"]) for each in history] == [
        ("granted", "100.00"),
        ("granted", "20.00"),
        ("drawn", "-60.00"),
        ("refunded", "-15.00"),
        ("refunded", "-25.00"),
        ("voided", "-20.00"),
    ]
    assert {(each["debit"], each["credit"]) for each in history[-1:]} == {("customer_credits", "promotions")}
    text = call(credits, "history", tenant)
    assert all(word in text for word in (paid["credit_id"], "-60.00", "revenue", f"inv-{scene.tag}"))
    # as known before the draw
    then = history[2]["recorded_at"]
    before = (datetime.fromisoformat(then) - timedelta(microseconds=1)).isoformat()
    assert len(read(call(credits, "history", tenant, "--as-of", before, "--json"))) == 2
    known = read(call(credits, "balance", tenant, "--as-of", before, "--json"))
    assert known["totals"] == {"USD": {"balance": "120.00", "available": "120.00"}}


def test_expired_credits_are_written_down_and_the_ledger_adds_up(
    call: Call, scene: CouponScene, settings: Settings
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    granted = read(call(credits, "grant", scene.tenant_id, "12", "--expires", soon, "--json"))
    found = ""
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while granted["credit_id"] not in found and datetime.now(UTC) < deadline:
        found = call(credits, "expire")
    assert f"{granted['credit_id']}: 12.00 USD of {scene.tenant_id} expired" in found
    assert "every balance is the sum of its entries" in call(credits, "check")
    document = read(call(credits, "check", "--json"))
    assert document["faults"] == []
    sums: dict[str, Decimal] = {}
    for row in document["accounts"]:
        sums[row["currency"]] = sums.get(row["currency"], Decimal(0)) + Decimal(row["debits_less_credits"])
    assert set(sums.values()) == {Decimal(0)}
    assert "breakage" in {row["account"] for row in document["accounts"]}


def test_a_ledger_that_does_not_add_up_ends_the_check_with_1(
    call: Call, scene: CouponScene, settings: Settings
) -> None:
    granted = read(call(credits, "grant", scene.tenant_id, "12", "--json"))
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        of = (granted["credit_id"],)
        connection.execute("UPDATE credit_balances SET balance = 13 WHERE grant_id = %s", of)
        result = CliRunner().invoke(credits, ["check"])
        connection.execute("UPDATE credit_balances SET balance = 12 WHERE grant_id = %s", of)
    assert result.exit_code == 1
    assert granted["credit_id"] in result.output
    assert "the ledger does not balance" in result.output
    assert CliRunner().invoke(credits, ["check"]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["grant", "TENANT", "x", "--kind", "gift"], ["invalid_kind", "invalid_amount"]),
        (["grant", "TENANT", "5", "--expires", "2020-01-01"], ["invalid_expiry"]),
        (["grant", "TENANT", "5", "--meter", "nonsense"], ["unknown_meter"]),
        (["balance", "TENANT", "--as-of", "then"], ["invalid_time"]),
    ],
)
def test_what_credits_refuses(call: Call, scene: CouponScene, words: list[str], codes: list[str]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        call(credits, *(scene.tenant_id if word == "TENANT" else word for word in words))
    assert [fault.code for fault in refused.value.faults] == codes
    for command in (["balance", "nobody"], ["history", "nobody"], ["grant", "nobody", "5"], ["void", "nothing"]):
        with pytest.raises(NotFoundError):
            call(credits, *command)


async def test_the_worker_writes_down_what_expires(settings: Settings) -> None:
    async with open_scene(settings) as scene:
        async with scene.ledger_and_facts() as (ledger, facts):
            long_ago = datetime(2026, 1, 1, tzinfo=UTC)
            document = {"amount": "5", "expires_at": "2026-02-01"}
            await grant_credit(scene.tenant_id, document, key="k", ledger=ledger, facts=facts, now=long_ago)
        ((_, run),) = load_consumers(["credits"])
        stop = asyncio.Event()
        worker = asyncio.create_task(run(settings, stop))
        async with asyncio.timeout(30):
            while True:
                async with scene.ledger() as ledger:
                    entries = await ledger.entries_of(scene.tenant_id)
                if len(entries) == 2:
                    break
                await asyncio.sleep(0.05)
        stop.set()
        await worker
        assert (entries[1].kind.value, entries[1].balance_after) == ("expired", 0)
