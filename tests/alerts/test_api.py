"""`/alerts`, `/alert-rules` and `/webhook-endpoints` on the real store, and `meterbook alerts` beside them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from typer.testing import CliRunner

from alerts.adapters.postgres_deliveries import PostgresDeliveries
from alerts.claim_alert import claim_alert
from alerts.commands import app
from api.adapters.postgres_alerts import PostgresAlerts
from api.application import create_app
from core.alert_rules import AlertRules
from core.clock import ManualClock, SystemClock
from core.errors import InvalidInputError, NotFoundError
from core.messages import QuotaCrossed, encode_message
from runtime.postgres import Pool
from runtime.settings import Settings
from runtime.webhooks_out.address_guard import OutgoingPolicy
from tests.api.conftest import Fakes

pytestmark = pytest.mark.integration
NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)


async def claimed(pool: Pool, tenant: str, percent: int = 80, *channels: str) -> str:
    message = QuotaCrossed(
        tenant_id=tenant,
        meter="api_requests",
        unit="request",
        period="2026-10",
        percent=percent,
        used="800",
        limit="1000",
        crossed_at="2026-10-20T11:59:58Z",
    )
    await claim_alert(
        encode_message(message),
        "quota",
        channels=channels or ("slack",),
        rules=AlertRules.of((), (80, 100)),
        store=PostgresDeliveries(pool),
        clock=ManualClock(NOW),
    )
    return message.alert_id


@pytest.fixture
async def tenant(pool: Pool) -> str:
    name = f"t-{uuid4().hex[:12]}"
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'T', 't@t.invalid', 'US', 'USD', now())",
            (name,),
        )
    return name


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    desk = PostgresAlerts(pool, OutgoingPolicy(), SystemClock())
    transport = httpx2.ASGITransport(app=create_app(replace(Fakes().dependencies(), alerts=desk)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid/api/v1") as client:
        yield client


async def test_alerts_are_listed_with_their_deliveries_page_by_page(
    client: httpx2.AsyncClient, pool: Pool, tenant: str
) -> None:
    ids = [await claimed(pool, tenant, percent, "slack", "email") for percent in (50, 80, 100)]
    first = (await client.get("/alerts", params={"tenant_id": tenant, "limit": 2})).json()
    assert first["has_more"] is True
    after = first["data"][-1]["alert_id"]
    second = (await client.get("/alerts", params={"tenant_id": tenant, "limit": 2, "starting_after": after})).json()
    assert second["has_more"] is False
    listed = [*first["data"], *second["data"]]
    assert sorted(alert["alert_id"] for alert in listed) == sorted(ids)
    assert {delivery["channel"] for delivery in listed[0]["deliveries"]} == {"slack", "email"}
    assert {alert["headline"] for alert in listed} == {
        f"{tenant} has used {percent} % of its api_requests limit" for percent in (50, 80)
    } | {f"{tenant} has used up its api_requests limit"}
    assert (await client.get("/alerts", params={"tenant_id": tenant, "status": "refused"})).json()["data"] == []
    assert (await client.get("/alerts", params={"tenant_id": tenant, "kind": "spend"})).json()["data"] == []
    assert (await client.get("/alerts", params={"starting_after": "alert_nothing"})).status_code == 404
    assert (await client.get("/alerts", params={"status": "lost"})).status_code == 422


async def test_what_was_refused_is_sent_again_and_what_was_sent_is_not(
    client: httpx2.AsyncClient, pool: Pool, tenant: str
) -> None:
    alert_id = await claimed(pool, tenant, 80, "slack", "email")
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE alert_deliveries SET status = 'sent', sent_at = now() WHERE alert_id = %s AND channel = 'email'",
            (alert_id,),
        )
        await connection.execute(
            "UPDATE alert_deliveries SET status = 'refused', attempts = 12, last_error = '404 no_service'"
            " WHERE alert_id = %s AND channel = 'slack'",
            (alert_id,),
        )
    answer = await client.post(f"/alerts/{alert_id}/resend")
    assert (answer.status_code, answer.json()) == (202, {"alert_id": alert_id, "deliveries": 1})
    [alert] = (await client.get("/alerts", params={"tenant_id": tenant})).json()["data"]
    assert [(one["channel"], one["status"]) for one in alert["deliveries"]] == [("email", "sent"), ("slack", "pending")]
    assert (await client.post("/alerts/alert_nothing/resend")).status_code == 404


async def test_rules_are_written_listed_and_removed(client: httpx2.AsyncClient, tenant: str) -> None:
    document = {"kind": "money", "value": "250.50", "currency": "USD", "tenant_id": tenant, "channels": ["slack"]}
    for _ in range(2):
        answer = await client.put("/alert-rules/spend", json=document)
        assert answer.status_code == 200
    expected = {"rule_id": "spend", **document, "value": "250.5", "meter": None, "charge": None, "enabled": True}
    assert answer.json() == expected
    assert (await client.get("/alert-rules")).json()["data"] == [expected]
    assert (await client.put("/alert-rules/spend-2", json=document)).status_code == 409
    assert (await client.put("/alert-rules/r", json={**document, "tenant_id": "nobody"})).status_code == 404
    assert (await client.put("/alert-rules/r", json={**document, "value": 250.5})).status_code == 422
    refused = await client.put("/alert-rules/r", json={**document, "currency": "ZZZ", "charge": "a", "meter": "b"})
    assert refused.status_code == 422
    assert {error["code"] for error in refused.json()["errors"]} == {"unknown_currency", "invalid_scope"}
    assert (await client.delete("/alert-rules/spend")).status_code == 204
    assert (await client.delete("/alert-rules/spend")).status_code == 404


async def test_a_secret_is_shown_when_it_is_made_and_never_again(client: httpx2.AsyncClient, tenant: str) -> None:
    document = {"url": "https://hooks.example/in", "tenant_id": tenant, "event_types": ["alert.triggered"]}
    made = await client.put("/webhook-endpoints/hook", json=document)
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    assert made.headers["cache-control"] == "no-store"
    changed = await client.put("/webhook-endpoints/hook", json={**document, "enabled": False})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    listed = await client.get("/webhook-endpoints")
    assert secret not in changed.text + listed.text
    rotated = (await client.post("/webhook-endpoints/hook/rotate-secret")).json()
    assert rotated["secret"] not in ("", secret)
    assert rotated["previous_secret_until"] is not None
    assert (await client.post("/webhook-endpoints/none/rotate-secret")).status_code == 404
    for url in ("http://hooks.example/", "https://127.0.0.1/", "https://[::1]/", "https://a:b@hooks.example/"):
        assert (await client.put("/webhook-endpoints/x", json={"url": url})).status_code == 422
    assert (await client.put("/webhook-endpoints/x", json={**document, "tenant_id": "nobody"})).status_code == 404


# The command


@pytest.fixture
def run(settings: Settings, tenant: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))
    return CliRunner().invoke


@pytest.fixture
def sync_store(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        for table in ("alert_rules", "webhook_deliveries", "webhook_endpoints", "alert_deliveries", "alerts"):
            connection.execute(f"DELETE FROM {table}".encode())
        yield connection


def test_the_command_shows_refused_deliveries_and_sends_them_again(
    run: Any, sync_store: psycopg.Connection[Any], tenant: str
) -> None:
    sync_store.execute(
        "INSERT INTO alerts (alert_id, kind, tenant_id, period, headline, payload, created_at)"
        " VALUES ('alert_1', 'quota', %s, '2026-10', 'acme has used 80 %% of cpu', '{}', now())",
        (tenant,),
    )
    sync_store.execute(
        "INSERT INTO alert_deliveries (alert_id, channel, tenant_id, payload, status, attempts, next_attempt_at,"
        " last_error, created_at) VALUES ('alert_1', 'slack', %s, '{}', 'refused', 12, now(), '404 no_service', now())",
        (tenant,),
    )
    shown = run(app, ["list", "--status", "refused"])
    assert shown.exit_code == 0, shown.output
    assert "acme has used 80 % of cpu  [alert_1]" in shown.output
    assert "refused, tries 12: 404 no_service" in shown.output
    assert run(app, ["resend", "--refused"]).output == "1 deliveries go out again\n"
    assert run(app, ["resend", "--refused"]).output == "0 deliveries go out again\n"
    listed = json.loads(run(app, ["list", "--json", "--tenant", tenant]).output)
    assert [one["status"] for one in listed[0]["deliveries"]] == ["pending"]
    assert isinstance(run(app, ["resend"]).exception, InvalidInputError)
    assert isinstance(run(app, ["resend", "alert_nothing"]).exception, NotFoundError)
    assert isinstance(run(app, ["list", "--status", "lost"]).exception, InvalidInputError)


def test_the_command_keeps_rules_and_endpoints(run: Any, sync_store: psycopg.Connection[Any], tenant: str) -> None:
    assert "without a rule: 80 %, 100 %" in run(app, ["rules"]).output
    arguments = ["set-rule", "r1", "--kind", "money", "--value", "100", "--currency", "EUR", "--tenant", tenant]
    assert run(app, [*arguments, "--channel", "email"]).output == "rule r1 is set\n"
    assert "100 EUR" in run(app, ["rules"]).output
    assert json.loads(run(app, ["rules", "--json"]).output)[0]["channels"] == ["email"]
    assert run(app, ["remove-rule", "r1"]).exit_code == 0
    assert isinstance(run(app, ["set-rule", "r1", "--kind", "percent"]).exception, InvalidInputError)
    made = run(app, ["set-endpoint", "hook", "https://hooks.example/in"])
    assert "its secret, shown once: whsec_" in made.output
    assert run(app, ["set-endpoint", "hook", "https://hooks.example/in", "--off"]).output == "endpoint hook is set\n"
    assert "off (by hand) https://hooks.example/in" in run(app, ["endpoints"]).output
    assert "whsec_" not in run(app, ["endpoints", "--json"]).output
    assert "whsec_" in run(app, ["rotate-secret", "hook"]).output
    assert isinstance(run(app, ["set-endpoint", "x", "http://10.0.0.1/"]).exception, InvalidInputError)
