"""`meterbook subscription` and `meterbook tenant` on the real store: what people see, what programs read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from core.errors import InvalidInputError, NotFoundError
from runtime.settings import Settings
from subscriptions import command_options, commands, subscription_commands
from tests.subscriptions.lifecycle import ACME, flat, plan, real_desk

pytestmark = pytest.mark.integration
Call = Callable[..., Any]


@pytest.fixture
def call(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr(commands, "load_settings", lambda: settings)
    monkeypatch.setattr(subscription_commands, "load_settings", lambda: settings)
    monkeypatch.setattr(command_options, "load_settings", lambda: settings)

    def run(*words: str, app: typer.Typer = subscription_commands.app, code: int = 0, read: bool = True) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"] if read else list(words))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if read else done.stdout

    return run


@pytest.fixture
def tenant(settings: Settings) -> str:
    async def open_for_business() -> str:
        async with real_desk(settings, ACME) as desk:
            return desk.tenant.tenant_id

    return asyncio.run(open_for_business())


def test_a_life_at_the_terminal(call: Call, tenant: str) -> None:
    created = call("create", tenant, "team", "--quantity", "5", "--trial-days", "14", "--key", "signup", "--by", "ann")
    subscription = created["subscription"]["subscription_id"]
    assert (created["new"], created["subscription"]["status"]) == (True, "trial")
    again = call("create", tenant, "team", "--quantity", "5", "--trial-days", "14", "--key", "signup")
    assert (again["new"], again["subscription"]["subscription_id"]) == (False, subscription)
    call("end-trial", subscription)
    changed = call("change-quantity", subscription, "8", "--key", "k1", "--reason", "three more")
    assert [one["kind"] for one in changed["made"]] == ["quantity_changed"]
    assert call("change-quantity", subscription, "8", "--key", "k1")["new"] is False
    assert "nothing to change" in call("change-quantity", subscription, "8", read=False)
    call("add-on", "add", subscription, "support", "--quantity", "2")
    call("change-plan", subscription, "small", "--at-period-end")
    shown = call("show", subscription)
    assert [one["plan_id"] for one in shown["phases"]][-1] == "small"
    assert [(one["plan_id"], one["quantity"]) for one in shown["held"]["add_ons"]] == [("support", "2")]
    call("withdraw", subscription, str(shown["changes"][-1]["sequence"]))
    call("pause", subscription, "--at-period-end", "--until", "2030-01-01")
    call("cancel", subscription, "--at-period-end", "--replace-scheduled")
    text = call("show", subscription, read=False)
    assert f"{subscription}  tenant {tenant}  active (ending)" in text
    assert "▶" in text
    assert "by ann" not in text
    assert "three more" in text
    assert subscription in call("list", "--tenant", tenant, read=False)
    call("reactivate", subscription)
    # The pause of the period's end is still scheduled; its end was withdrawn with what came after the subscription's.
    call("cancel", subscription, "--replace-scheduled")
    assert call("list", "--tenant", tenant) == []
    assert [one["status"] for one in call("list", "--tenant", tenant, "--all")] == ["canceled"]
    call("reactivate", subscription)
    assert [one["status"] for one in call("list", "--tenant", tenant)] == ["active"]


def test_a_term_is_renewed_at_the_terminal(call: Call, tenant: str) -> None:
    wanted = ("--term", "2", "--interval", "quarter", "--anchor", "2026-01-31", "--convention", "thirty_day_month")
    created = call("create", tenant, "small", "--at", "2026-11-01", "--add-on", "support:3", *wanted)["subscription"]
    # The period of 1 November begins on 31 October; two of them last until 30 April.
    assert (created["ended_at"], created["convention"]) == ("2027-04-30T00:00:00Z", "thirty_day_month")
    renewed = call("renew", created["subscription_id"], "--term", "1")["subscription"]
    assert renewed["ended_at"] == "2027-07-31T00:00:00Z"
    assert call("renew", created["subscription_id"])["subscription"]["ended_at"] is None


def test_refusals_have_codes(call: Call, tenant: str) -> None:
    subscription = call("create", tenant, "calls")["subscription"]["subscription_id"]

    def refused(*words: str) -> list[str]:
        with pytest.raises(InvalidInputError) as found:
            call(*words)
        return [fault.code for fault in found.value.faults]

    assert refused("create", tenant, "more-calls") == ["meter_priced_twice"]
    assert refused("create", tenant, "team", "--quantity", "-1") == ["negative_amount"]
    assert refused("create", tenant, "team", "--interval", "week") == ["invalid_choice"]
    assert refused("create", tenant, "team", "--anchor", "soon") == ["invalid_date"]
    assert refused("resume", subscription) == ["not_paused"]
    assert refused("cancel", subscription, "--at", "then") == ["invalid_time"]
    assert refused("cancel", subscription, "--at", "2026-11-01", "--at-period-end") == ["contradiction"]
    for words in (("show", "sub_nobody"), ("list", "--tenant", "nobody"), ("change-plan", subscription, "platinum")):
        with pytest.raises(NotFoundError):
            call(*words)


def test_subscribers_are_moved_to_the_new_version(call: Call, settings: Settings, tenant: str) -> None:
    name = f"moving-{uuid4().hex[:8]}"

    async def sell(amount: str) -> None:
        async with real_desk(settings, replace(ACME)) as desk:
            await desk.sell(plan(name, flat(amount)))

    asyncio.run(sell("10"))
    subscription = call("create", tenant, name)["subscription"]["subscription_id"]
    asyncio.run(sell("12"))
    tried = call("migrate", name, "--dry-run")
    assert [(one["subscription_id"], one["outcome"]) for one in tried] == [(subscription, "would_move")]
    assert "1 moved, 0 refused" in call("migrate", name, "--now", read=False)
    assert call("show", subscription)["held"]["plan_version"] == 2
    assert "0 moved, 0 refused" in call("migrate", name, "--now", read=False)
    later = (datetime.now(UTC) + timedelta(days=60)).isoformat()
    asyncio.run(sell("14"))
    call("change-plan", subscription, "small", "--at", later)
    assert [one["outcome"] for one in call("migrate", name, code=1)] == ["refused"]


def test_the_short_way_to_a_plan_still_works(call: Call) -> None:
    name = f"t-{uuid4().hex[:10]}"
    words = ("add", name, "--name", "Acme", "--email", "a@b.example", "--plan", "lite", "--started", "2026-10-01")
    added = call(*words, app=commands.app)
    assert (added["plan_id"], added["new"]) == ("lite", True)
    assert call(*words, app=commands.app)["new"] is False
    assert f"{name:<24} lite v" in call("list", app=commands.app, read=False)
    [listed] = [one for one in call("list", app=commands.app) if one["tenant_id"] == name]
    assert listed["subscriptions"] == [added["subscription_id"]]
