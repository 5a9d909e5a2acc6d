"""`meterbook entitlements` and `meterbook grants` on the real stores."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from core.errors import InvalidInputError
from quotas.commands import entitlement_app, grant_app
from runtime.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("quotas.commands.load_settings", lambda: settings)
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES ('cli', 'n', 'e', 'DE', 'EUR', now()) ON CONFLICT DO NOTHING"
        )
        connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, created_at)"
            " VALUES ('cli-calls', 'call', 'cli', 'sum', 'n', now()) ON CONFLICT DO NOTHING"
        )

    def call(app: Any, *words: str) -> str:
        return CliRunner().invoke(app, words, catch_exceptions=False).stdout

    return call


def test_features_are_given_shown_and_topped_up(run: Any) -> None:
    run(entitlement_app, "feature", "cli-sso", "--kind", "boolean", "--name", "Single sign-on")
    run(entitlement_app, "give", "cli-sso", "--tenant", "cli", "--value", "true")
    run(entitlement_app, "give", "cli-calls", "--tenant", "cli", "--limit", "100.5", "--hard")
    first = json.loads(run(grant_app, "add", "cli", "cli-calls", "20", "--key", "k", "--reason", "sorry", "--json"))
    again = json.loads(run(grant_app, "add", "cli", "cli-calls", "20", "--key", "k", "--reason", "sorry", "--json"))
    assert again == first
    shown = {row["feature"]: row for row in json.loads(run(entitlement_app, "show", "cli", "--json"))}
    assert shown["cli-sso"]["value"] is True
    calls = shown["cli-calls"]
    assert (calls["limit"], calls["balance"], calls["hard"], calls["origin"]) == ("100.5", "120.5", True, "tenant")
    assert "0 of 100.5 (hard) month, 120.5 left" in run(entitlement_app, "show", "cli")
    assert first["grant_id"] in run(grant_app, "list", "cli", "--feature", "cli-calls")
    run(grant_app, "void", first["grant_id"])
    assert json.loads(run(grant_app, "list", "cli", "--json")) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["give", "no-such-thing", "--tenant", "cli", "--limit", "1"], "unknown_feature"),
        (["give", "cli-calls", "--limit", "1"], "invalid_owner"),
        (["give", "cli-calls", "--tenant", "cli", "--limit", "x"], "invalid_amount"),
        (["give", "cli-calls", "--tenant", "cli", "--period", "week"], "invalid_period"),
        (["feature", "x", "--kind", "other"], "invalid_kind"),
        (["feature", "x", "--kind", "metered"], "invalid_meter"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Any, words: list[str], code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        run(entitlement_app, *words)
    assert [fault.code for fault in refused.value.faults] == [code]
