"""`meterbook subscription preview` on the real engines: the verb's own change, the invoice's sums, nothing stored."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from core.calendar import UTC_MONTHS
from core.errors import InvalidInputError
from runtime.processes import preview as process
from runtime.settings import Settings
from tests.subscriptions.lifecycle import ACME, flat, plan, real_desk

pytestmark = pytest.mark.integration


def test_an_upgrade_is_previewed_and_not_made(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "load_settings", lambda: settings)
    app = typer.Typer()
    app.command()(process.preview)
    now = datetime.now(UTC)
    month = UTC_MONTHS.period(UTC_MONTHS.month_name(now))
    name = f"cheap-{uuid4().hex[:8]}"

    async def opened() -> tuple[str, str, list[Any]]:
        async with real_desk(settings, ACME) as desk:
            desk.clock.travel_to(month.start)
            await desk.sell(plan(name, flat("10")))
            await desk.subscribe("calls")
            return desk.tenant.tenant_id, await desk.subscribe(name), await desk.everything()

    tenant, subscription, before = asyncio.run(opened())

    def previewed(*words: str) -> Any:
        done = CliRunner().invoke(app, [subscription, *words, "--json"])
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    # From the month's first minute on: 93 instead of 10 for the whole of it.
    found = previewed("--plan", "large", "--at", month.start.isoformat())
    assert (found["as_it_is"]["total"], found["changed"]["total"], found["difference"]) == ("10.00", "93.00", "83.00")
    # With the period's end: the next month's invoice.
    following = previewed("--plan", "large", "--at-period-end")
    assert following["changed"]["period_start"] == month.end.isoformat().replace("+00:00", "Z")
    assert (following["as_it_is"]["total"], following["changed"]["total"]) == ("10.00", "93.00")
    assert previewed()["difference"] == "0.00"
    with pytest.raises(InvalidInputError, match="meter_priced_twice"):
        previewed("--add-on", "more-calls")
    with pytest.raises(InvalidInputError, match="contradiction"):
        previewed("--pause", "--cancel")
    text = CliRunner().invoke(app, [subscription, "--cancel", "--at", month.start.isoformat()]).stdout
    assert "With the change:" in text
    assert "Difference: -10.00" in text

    async def kept() -> list[Any]:
        async with real_desk(settings, ACME) as desk, desk.store() as store:
            found: list[Any] = await store.subscriptions(tenant)
            return found

    assert asyncio.run(kept()) == before
