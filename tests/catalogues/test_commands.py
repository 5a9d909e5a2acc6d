"""`meterbook catalogue` and `meterbook contract`: what they print, their exit codes, and what follows elsewhere."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from typer.testing import CliRunner, Result

from catalogues.commands import app, apply_files
from catalogues.load_catalogue import shipped_files
from core.errors import InvalidInputError, NotFoundError
from quotas.adapters.postgres_entitlements import PostgresEntitlements
from runtime.postgres import create_pool
from runtime.processes.contracts import create_app
from runtime.settings import Settings
from subscriptions.adapters.postgres import PostgresSubscriptionStore

BAD = """\
catalogue: shop
version: 0
effective_from: 1.1.2027
plans:
  lite:
    name: Lite
    currency: EURO
    features: {sso: true, basic: 1}
    charges:
      - {id: base, name: Base, model: flat, flat_amount: 99.5}
      - {id: cpu, name: CPU, meter: cpus, model: per_unit, unit_amount: "1"}
"""
FAULTS = [
    (2, "version", "invalid_number"),
    (3, "effective_from", "invalid_date"),
    (7, "plans.lite.currency", "unknown_currency"),
    (8, "plans.lite.features.sso", "unknown_feature"),
    (8, "plans.lite.features.basic", "invalid_type"),
    (10, "plans.lite.charges[0].flat_amount", "float_amount"),
    (11, "plans.lite.charges[1].meter", "unknown_meter"),
]


def test_validate_names_every_fault_with_file_line_and_path(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    shown = CliRunner().invoke(app, ["validate", str(file)])
    assert shown.exit_code == 1
    *refused, summary = shown.stderr.splitlines()
    assert [line.split(" ")[1:3] for line in refused] == [[f"{file}:{line}:", f"{path}:"] for line, path, _ in FAULTS]
    assert [line.rsplit(" ", 1)[1] for line in refused] == [f"[{code}]" for _, _, code in FAULTS]
    assert summary == "7 faults: nothing of it can be applied"
    as_json = CliRunner().invoke(app, ["validate", str(file), "--json"])
    assert as_json.exit_code == 1
    found = json.loads(as_json.stdout)["faults"]
    assert [(one["line"], one["path"], one["code"]) for one in found] == FAULTS
    assert {one["file"] for one in found} == {str(file)}


@pytest.mark.parametrize(
    ("content", "line", "path", "code"),
    [
        (None, None, "", "unreadable_file"),
        ("", None, "", "invalid_yaml"),
        ("a: [1", 1, "", "invalid_yaml"),
        ("plans: {}\nplans: {}", 2, "plans", "duplicate_key"),
    ],
)
def test_a_file_that_cannot_be_read_has_its_place_too(
    tmp_path: Path, content: str | None, line: int | None, path: str, code: str
) -> None:
    file = tmp_path / "odd.yaml"
    if content is not None:
        file.write_text(content)
    shown = CliRunner().invoke(app, ["validate", str(file), "--json"])
    [fault] = json.loads(shown.stdout)["faults"]
    assert (fault["file"], fault["line"], fault["path"], fault["code"]) == (str(file), line, path, code)


def test_validate_says_what_the_shipped_files_hold() -> None:
    shown = CliRunner().invoke(app, ["validate"])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    tiers = "tiers version 1 from 2026-01-01 zero, zero_pay_per_execution, shared, lite, enterprise, airgapped"
    assert " ".join(lines[1].split()) == tiers
    assert lines[-1].endswith("14 plans, 63 charges: all is well")
    document = json.loads(CliRunner().invoke(app, ["validate", "--json"]).stdout)
    assert len(document["plans"]) == 14
    assert [one["version"] for one in document["editions"]] == [1, 1, 1, 1]


class Terminal:
    """Commands on the real stores, and a plan, feature and tenant by names of this test's own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self._folder = settings, folder
        self.name = f"t{uuid4().hex[:10]}"
        self._contracts = create_app()

    def file(self, text: str, name: str = "file.yaml") -> str:
        path = self._folder / name
        path.write_text(text.replace("NAME", self.name))
        return str(path)

    def catalogue(self, *words: str) -> Result:
        return CliRunner().invoke(app, words, catch_exceptions=False)

    def contract(self, *words: str) -> str:
        return CliRunner().invoke(self._contracts, words, catch_exceptions=False).stdout

    def sql(self, statement: str) -> list[Any]:
        with psycopg.connect(self.settings.postgres) as connection:
            cursor = connection.execute(statement.encode(), {"me": self.name})
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def terminal(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr("catalogues.commands.load_settings", lambda: settings)
    monkeypatch.setattr("catalogues.contracts.commands.load_settings", lambda: settings)
    return Terminal(settings, tmp_path)


PLAN = """\
catalogue: NAME
version: 1
features: {NAME: {kind: boolean}}
plans:
  NAME:
    name: P
    currency: USD
    features: {NAME: true}
    charges:
      - {id: base, name: Base, model: flat, flat_amount: "10"}
      - {id: cpu, name: CPU, meter: cpu, model: included, included: "100", unit_amount: "0.05"}
"""


@pytest.mark.integration
def test_a_catalogue_is_compared_applied_and_then_the_same(terminal: Terminal) -> None:
    asyncio.run(apply_files(terminal.settings, shipped_files()))
    file = terminal.file(PLAN)
    before = terminal.catalogue("diff", file, "--exit-code")
    assert before.exit_code == 3
    assert f"plan {terminal.name}: new, version 1" in before.stdout
    assert "+ cpu " in before.stdout
    applied = json.loads(terminal.catalogue("apply", file, "--json").stdout)
    assert (applied["meters"], applied["features"], applied["plans"]) == ([], [terminal.name], {terminal.name: 1})
    assert terminal.catalogue("diff", file, "--exit-code").exit_code == 0
    assert terminal.catalogue("apply", file).stdout == "nothing new: what the files say is stored\n"
    changed = terminal.file(PLAN.replace("version: 1", "version: 2").replace('"0.05"', '"0.06"'))
    assert "~ cpu.unit_amount  0.05 → 0.06  +20.0 %" in terminal.catalogue("diff", changed).stdout
    assert "1 changed plan stored; 1 as before" in terminal.catalogue("apply", changed).stdout
    unversioned = terminal.file(PLAN.replace("version: 1", "version: 2").replace('"0.05"', '"0.07"'))
    refused = terminal.catalogue("diff", unversioned, "--json")
    assert refused.exit_code == 1
    assert [one["code"] for one in json.loads(refused.stdout)["refused"]] == ["edition_changed"]
    with pytest.raises(InvalidInputError, match="edition_changed"):
        terminal.catalogue("apply", unversioned)


@pytest.mark.integration
def test_a_plan_gives_its_subscribers_what_their_version_gives(terminal: Terminal) -> None:
    asyncio.run(apply_files(terminal.settings, shipped_files()))
    terminal.catalogue("apply", terminal.file(PLAN))
    _subscribe(terminal)
    newer = PLAN.replace("version: 1", "version: 2").replace("features: {NAME: true}", "features: {NAME: false}")
    terminal.catalogue("apply", terminal.file(newer))
    assert _given(terminal) == ("plan", True), "the tenant keeps what it was sold"
    terminal.sql(
        "INSERT INTO entitlements (entitlement_id, feature_id, plan_id, value, created_at)"
        " VALUES (%(me)s, %(me)s, %(me)s, 'false', now())"
    )
    assert _given(terminal) == ("plan", False), "what is given to the plan by hand comes first"
    terminal.sql(
        "INSERT INTO entitlements (entitlement_id, feature_id, tenant_id, value, created_at)"
        " VALUES (%(me)s || 't', %(me)s, %(me)s, 'true', now())"
    )
    assert _given(terminal) == ("tenant", True)


@pytest.mark.integration
def test_a_version_with_a_later_date_waits_for_it(terminal: Terminal) -> None:
    asyncio.run(apply_files(terminal.settings, shipped_files()))
    terminal.catalogue("apply", terminal.file(PLAN))
    later = PLAN.replace("version: 1", "version: 2\neffective_from: 2040-01-01").replace('"10"', '"12"')
    assert "version 1 → 2, sold from 2040-01-01" in terminal.catalogue("apply", terminal.file(later)).stdout

    async def sold(at: datetime) -> int | None:
        pool = create_pool(terminal.settings, max_size=1)
        async with pool, pool.connection() as connection:
            found = await PostgresSubscriptionStore(connection).newest_plan(terminal.name, at)
        return found.version if found else None

    dates = [datetime(2039, 12, 31, 23, 59, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)]
    assert [asyncio.run(sold(at)) for at in dates] == [1, 2]
    sooner = PLAN.replace("version: 1", "version: 3\neffective_from: 2039-01-01")
    with pytest.raises(InvalidInputError, match="effective_before_stored"):
        terminal.catalogue("apply", terminal.file(sooner))


CONTRACT = """\
contract: NAME
tenant: NAME
plan: NAME
currency: USD
valid_from: 2030-01-01
charges:
  - {id: cpu, included: "250"}
"""


@pytest.mark.integration
def test_a_contract_is_added_shown_amended_and_ended_and_limits_follow(terminal: Terminal) -> None:
    asyncio.run(apply_files(terminal.settings, shipped_files()))
    terminal.catalogue("apply", terminal.file(PLAN))
    _subscribe(terminal)
    name = terminal.name
    added = terminal.contract("add", terminal.file(CONTRACT))
    assert f"{name} version 1: {name} on {name}, planned, from 2030-01-01 without end (Europe/Berlin)" in added
    assert "cpu.included  100 → 250  +150.0 %" in added
    assert terminal.contract("add", terminal.file(CONTRACT)) == f"{name} version 1: as before\n"
    assert _limits(terminal) == [("100", None, "2029-12-31T23:00"), ("250", "2029-12-31T23:00", None)]
    amended = CONTRACT.replace("2030-01-01", "2031-01-01").replace('"250"', '"300"')
    assert f"{name} version 1 ends 2031-01-01" in terminal.contract("add", terminal.file(amended))
    listed = json.loads(terminal.contract("list", "--tenant", name, "--json"))
    assert [(one["version"], one["valid_until"]) for one in listed] == [(1, "2030-12-31T23:00:00Z"), (2, None)]
    assert terminal.contract("show", name).count("cpu.included") == 2
    ended = json.loads(terminal.contract("end", name, "--at", "2030-07-01", "--json"))
    assert ended["shortened"] == [{"version": 1, "valid_until": "2030-06-30T22:00:00Z"}]
    assert ended["withdrawn"] == [{"version": 2}]
    assert _limits(terminal) == [
        ("100", None, "2029-12-31T23:00"),
        ("250", "2029-12-31T23:00", "2030-06-30T22:00"),
        ("100", "2030-06-30T22:00", None),
    ]
    assert "it has ended before then" in terminal.contract("end", name, "--at", "2030-07-01")
    with pytest.raises(NotFoundError):
        terminal.contract("show", "nobody-s")
    with pytest.raises(InvalidInputError, match="at: expected a date"):
        terminal.contract("end", name, "--at", "soon")


@pytest.mark.integration
def test_of_several_contracts_with_a_fault_none_is_stored_and_all_faults_are_told(terminal: Terminal) -> None:
    asyncio.run(apply_files(terminal.settings, shipped_files()))
    terminal.catalogue("apply", terminal.file(PLAN))
    _subscribe(terminal)
    good = terminal.file(CONTRACT, "good.yaml")
    bad = terminal.file(CONTRACT.replace("USD", "EUR").replace("id: cpu", "id: cqu"), "bad.yaml")
    anchors = terminal.file("a: &x [1]\nb: *x", "anchors.yaml")
    with pytest.raises(InvalidInputError) as refused:
        terminal.contract("add", good, bad, anchors)
    folder = f"{Path(good).parent}/"
    assert [(one.code, one.path.removeprefix(folder)) for one in refused.value.faults] == [
        ("currency_mismatch", "bad.yaml:4: currency"),
        ("unknown_charge", "bad.yaml:7: charges[0].id"),
        ("invalid_yaml", "anchors.yaml:1"),
    ]
    assert json.loads(terminal.contract("list", "--tenant", terminal.name, "--json")) == []


def _subscribe(terminal: Terminal) -> None:
    terminal.sql(
        "INSERT INTO tenants (tenant_id, name, email, country, currency, time_zone, created_at)"
        " VALUES (%(me)s, 'T', 't@example.com', 'DE', 'USD', 'Europe/Berlin', now())"
    )
    terminal.sql(
        "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at)"
        " VALUES (%(me)s, %(me)s, %(me)s, 1, '2026-01-01')"
    )


def _given(terminal: Terminal) -> tuple[str, Any]:
    async def ask() -> tuple[str, Any]:
        async with create_pool(terminal.settings, max_size=1) as pool:
            found = (await PostgresEntitlements(pool).of_tenant(terminal.name)).of_feature(terminal.name)
            return found.origin, found.value

    return asyncio.run(ask())


def _limits(terminal: Terminal) -> list[tuple[str, str | None, str | None]]:
    found: list[tuple[Decimal, str, str]] = terminal.sql(
        "SELECT limit_quantity, to_char(effective_from, 'YYYY-MM-DD\"T\"HH24:MI'),"
        " to_char(effective_until, 'YYYY-MM-DD\"T\"HH24:MI') FROM quota_limit_phases"
        " WHERE tenant_id = %(me)s AND meter_id = 'cpu' ORDER BY effective_from"
    )
    return [(str(limit), start if start else None, end if end else None) for limit, start, end in found]
