"""Contracts: read, checked against the plan, added, amended and ended; in memory and for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from catalogues.commands import apply_files
from catalogues.contracts.adapters.postgres import ContractInUseError, PostgresContractStore
from catalogues.contracts.add_contract import Added, add_contract
from catalogues.contracts.end_contract import ContractBegunError, end_contract
from catalogues.contracts.ports import HeldTerms, StoredContract
from catalogues.contracts.show_contract import list_text, state_of, steps_text, version_text
from catalogues.contracts.succession import Steps
from catalogues.load_catalogue import shipped_files
from core.errors import InvalidInputError, NotFoundError
from core.read_yaml import read_yaml
from rating.adapters.stored_contracts import read_contracts
from rating.domain.contract import contract_at, contract_periods
from rating.domain.override_plan import override_plan
from rating.domain.plan import parse_plan
from rating.domain.usage import usage_row
from runtime.postgres import create_pool
from runtime.settings import Settings
from tests.catalogues.memory import MemoryContractStore
from tests.rating.plans import ALWAYS, METERS, OCTOBER, SHIPPED, TIERS, amounts, rate

NOW = datetime(2026, 10, 15, 12, 30, 45, tzinfo=UTC)
KINDS = ["memory", pytest.param("real", marks=pytest.mark.integration)]


def at(month: int, day: int = 1, year: int = 2027) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


class Office:
    """One tenant with its contracts, by names of this test's own."""

    def __init__(self, settings: Settings | None, time_zone: str = "UTC") -> None:
        self._settings = settings
        self.tenant = f"t{uuid4().hex[:10]}"
        self.contract = f"c-{self.tenant}"
        plans = {plan.plan_id: plan.document for _, plan in SHIPPED.plans}
        self.memory = MemoryContractStore({self.tenant: time_zone}, plans, METERS)
        if settings is not None:
            with psycopg.connect(settings.postgres) as connection:
                connection.execute(
                    "INSERT INTO tenants (tenant_id, name, email, country, currency, time_zone, created_at)"
                    " VALUES (%s, 'T', 't@example.com', 'US', 'USD', %s, %s)",
                    (self.tenant, time_zone, NOW),
                )

    def document(self, **fields: Any) -> dict[str, Any]:
        document = {
            "contract": self.contract,
            "tenant": self.tenant,
            "plan": "enterprise",
            "currency": "USD",
            "valid_from": "2027-01-01",
            "charges": [{"id": "base", "flat_amount": "8000"}],
        }
        return {name: value for name, value in {**document, **fields}.items() if value is not ...}

    async def add(self, now: datetime = NOW, **fields: Any) -> Added:
        async with self.open() as store:
            return await add_contract(self.document(**fields), store=store, now=now)

    async def end(self, instant: datetime | None, now: datetime = NOW) -> Steps:
        async with self.open() as store:
            return await end_contract(self.contract, instant, store=store, now=now)

    async def refusals(self, **fields: Any) -> list[tuple[str, str]]:
        with pytest.raises(InvalidInputError) as refused:
            await self.add(**fields)
        return [(fault.code, fault.path) for fault in refused.value.faults]

    async def put(self, stored: StoredContract) -> None:
        """Store a version past all checks, as one who came at the same time would."""
        async with self.open() as store:
            await store.add(stored)

    async def rows(self) -> list[tuple[str, int, str]]:
        """Return what counts: id, version and validity."""
        async with self.open() as store:
            found = [one.contract for one in await store.contracts(self.tenant)]
        return [(one.contract_id.removesuffix(self.tenant), one.version, one.validity) for one in found]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        if self._settings is None:
            yield self.memory
            return
        pool = create_pool(self._settings, max_size=1)
        async with pool, pool.connection() as connection, connection.transaction():
            yield PostgresContractStore(connection)


@pytest.fixture(params=KINDS)
def office(request: pytest.FixtureRequest) -> Office:
    if request.param == "memory":
        return Office(None)
    settings: Settings = request.getfixturevalue("settings")
    asyncio.run(apply_files(settings, shipped_files()))
    return Office(settings)


async def test_adding_twice_changes_nothing(office: Office) -> None:
    assert (await office.add()).outcome == "added"
    again = await office.add()
    assert (again.outcome, again.stored.contract.version) == ("as_before", 1)
    assert await office.rows() == [("c-", 1, "2027-01-01T00:00:00Z/..")]


async def test_all_that_a_contract_says_is_stored(office: Office) -> None:
    said = await office.add(
        valid_until="2028-01-01T06:30:00+01:00",
        minimum_amount="12000",
        proration="thirty_day_month",
        net_days=60,
        name="Enterprise for T",
        limits={"cpu": {"quantity": "500", "hard": True}},
    )
    async with office.open() as store:
        [stored] = await store.versions(office.contract)
    assert stored == said.stored
    contract = stored.contract
    assert (contract.convention, contract.net_days) == ("thirty_day_month", 60)
    assert contract.validity == "2027-01-01T00:00:00Z/2028-01-01T05:30:00Z"
    assert contract.overrides == {
        "name": "Enterprise for T",
        "limits": {"cpu": {"quantity": "500", "hard": True}},
        "charges": [{"id": "base", "flat_amount": "8000"}, {"id": "minimum", "minimum_amount": "12000"}],
    }


async def test_a_contract_prices_what_it_names_and_the_plan_the_rest(office: Office) -> None:
    charges = [
        {"id": "base", "flat_amount": "2000"},
        {"id": "gpu", "unit_amounts": {"t4": "0.40", "a100": "2.50"}},
        {"id": "sla", "name": "Premium SLA", "model": "flat", "flat_amount": "500"},
    ]
    contract = (await office.add(charges=charges, minimum_amount="6000")).stored.contract
    plan = parse_plan("enterprise", override_plan(TIERS["enterprise"].document, contract.overrides), METERS)
    rated = rate(plan, [usage_row("gpu", 100, {"gpu": "a100"}), usage_row("cpu", 10)], OCTOBER, ALWAYS)
    assert amounts(rated) == {
        "Enterprise base fee": "2000.00",
        "GPU — a100": "250.00",  # 100 × 2.50
        "CPU": "0.50",  # 10 × 0.05, the plan's
        "Premium SLA": "500.00",
        "Top-up to the monthly minimum": "3249.50",  # 6,000 - 2,750.50
    }


async def test_a_minimum_where_the_plan_has_none_is_a_charge_of_its_own(office: Office) -> None:
    contract = (await office.add(plan="lite", charges=..., minimum_amount="150")).stored.contract
    plan = parse_plan("lite", override_plan(TIERS["lite"].document, contract.overrides), METERS)
    assert amounts(rate(plan, [], OCTOBER, ALWAYS)) == {
        "Lite base fee": "99.00",
        "Top-up to the contract's minimum": "51.00",  # 150 - 99
    }


async def test_an_amendment_is_the_next_version_and_ends_the_one_before(office: Office) -> None:
    await office.add()
    later = await office.add(valid_from="2027-07-01", charges=[{"id": "base", "flat_amount": "9000"}])
    assert (later.outcome, later.stored.contract.version) == ("amended", 2)
    assert list(steps_text(later.steps)) == [f"{office.contract} version 1 ends 2027-07-01"]
    assert await office.rows() == [
        ("c-", 1, "2027-01-01T00:00:00Z/2027-07-01T00:00:00Z"),
        ("c-", 2, "2027-07-01T00:00:00Z/.."),
    ]


async def test_several_contracts_may_follow_each_other(office: Office) -> None:
    await office.add(valid_until="2028-01-01")
    await office.add(contract=f"d-{office.tenant}", valid_from="2028-01-01", valid_until="2029-01-01")
    await office.add(contract=f"e-{office.tenant}", valid_from="2030-01-01")
    await office.add(contract=f"f-{office.tenant}", plan="lite", charges=[])
    assert [name for name, _, _ in await office.rows()] == ["c-", "d-", "e-", "f-"]
    async with office.open() as store:
        contracts = [one.contract for one in await store.contracts(office.tenant)]
    found = contract_at(contracts, at(6, year=2028), plan_id="enterprise")
    assert found is not None
    assert found.contract_id == f"d-{office.tenant}"


@pytest.mark.parametrize(
    ("valid_from", "valid_until"),
    [("2027-06-01", ...), ("2026-01-01", "2027-01-02"), ("2026-01-01", ...), ("2027-12-31", "2028-06-01")],
)
async def test_two_contracts_for_a_plan_never_overlap(office: Office, valid_from: str, valid_until: Any) -> None:
    await office.add(valid_until="2028-01-01")
    other = {"contract": f"d-{office.tenant}", "valid_from": valid_from, "valid_until": valid_until}
    assert await office.refusals(**other) == [("contract_overlap", "valid_from")]


async def test_what_has_begun_is_not_amended_before_now(office: Office) -> None:
    await office.add(valid_from="2026-01-01")
    amended = {"valid_from": "2026-10-15", "charges": [{"id": "base", "flat_amount": "1"}]}
    assert await office.refusals(**amended) == [("amends_the_past", "valid_from")]
    assert await office.refusals(**{**amended, "valid_from": "2026-01-01"}) == [("amends_the_past", "valid_from")]
    assert await office.refusals(**{**amended, "valid_from": "2025-01-01"}) == [("amends_the_past", "valid_from")]
    assert (await office.add(**{**amended, "valid_from": "2026-10-16"})).outcome == "amended"


async def test_what_has_not_begun_may_be_replaced(office: Office) -> None:
    await office.add()
    sooner = await office.add(valid_from="2026-12-01")
    assert list(steps_text(sooner.steps)) == [f"{office.contract} version 1 was withdrawn before it began"]
    assert await office.rows() == [("c-", 2, "2026-12-01T00:00:00Z/..")]
    assert (await office.add()).stored.contract.version == 3, "what was withdrawn does not count as there"


async def test_a_contract_signed_late_counts_from_its_date(office: Office) -> None:
    assert (await office.add(valid_from="2026-09-01", valid_until="2026-10-01")).outcome == "added"


async def test_ending_a_contract(office: Office) -> None:
    await office.add(valid_from="2026-01-01")
    await office.add(valid_from="2027-06-01")
    steps = await office.end(at(3))
    assert list(steps_text(steps)) == [
        f"{office.contract} version 1 ends 2027-03-01",
        f"{office.contract} version 2 was withdrawn before it began",
    ]
    assert await office.rows() == [("c-", 1, "2026-01-01T00:00:00Z/2027-03-01T00:00:00Z")]
    assert await office.end(at(3)) == Steps(), "ending it again does nothing"
    assert await office.end(at(4)) == Steps(), "nor does a later end"
    with pytest.raises(ContractBegunError):
        await office.end(at(1, year=2026) + timedelta(days=3))
    with pytest.raises(ContractBegunError):
        await office.end(at(1, year=2025))
    assert len((await office.end(None)).shorten) == 1
    assert await office.rows() == [("c-", 1, "2026-01-01T00:00:00Z/2026-10-15T12:30:00Z")]


async def test_an_unknown_contract_cannot_end(office: Office) -> None:
    with pytest.raises(NotFoundError):
        await office.end(None)


async def test_a_contract_belongs_to_one_tenant_and_plan(office: Office) -> None:
    await office.add()
    assert await office.refusals(plan="lite", charges=[], valid_from="2027-05-01") == [
        ("contract_of_other", "contract")
    ]


async def test_versions_that_subscribers_hold_are_checked_too() -> None:
    office = Office(None)
    older = {
        **TIERS["enterprise"].document,
        "charges": [{"id": "fee", "name": "F", "model": "flat", "flat_amount": "1"}],
    }
    office.memory.held.append(HeldTerms(4, older, {}))
    assert await office.refusals() == [
        ("unknown_charge", "charges[0].id"),
    ]


@pytest.mark.integration
async def test_versions_that_subscribers_hold_are_found(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    office = Office(settings)
    with psycopg.connect(settings.postgres) as connection:
        connection.execute(
            "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, overrides, started_at)"
            " VALUES (%s, %s, 'enterprise', 1, %s, %s)",
            (f"s-{office.tenant}", office.tenant, Jsonb({"charges": [{"id": "base", "flat_amount": "7"}]}), NOW),
        )
    async with office.open() as store:
        [held] = await store.held_terms(office.tenant, "enterprise")
        assert await store.held_terms(office.tenant, "lite") == []
    assert held.plan_version == 1
    assert held.document["name"] == "Enterprise"
    assert held.overrides == {"charges": [{"id": "base", "flat_amount": "7"}]}


async def test_dates_are_days_of_the_tenant() -> None:
    office = Office(None, "Europe/Berlin")
    contract = (await office.add(valid_from="2027-01-01", valid_until="2027-07-01")).stored.contract
    assert contract.validity == "2026-12-31T23:00:00Z/2027-06-30T22:00:00Z"


WRONG: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"tenant": "nobody"}, [("unknown_tenant", "tenant")]),
    ({"tenant": "../x"}, [("invalid_tenant_id", "tenant")]),
    ({"tenant": 5}, [("invalid_text", "tenant")]),
    ({"plan": "platinum"}, [("unknown_plan", "plan")]),
    ({"currency": ...}, [("unknown_currency", "currency")]),
    ({"currency": "EUR"}, [("currency_mismatch", "currency")]),
    ({"currency": "XTS"}, [("unknown_currency", "currency")]),
    ({"contract": "Acme"}, [("invalid_name", "contract")]),
    ({"discount": "10"}, [("unknown_field", "discount")]),
    ({"valid_from": ...}, [("missing_field", "valid_from")]),
    ({"valid_from": None}, [("invalid_date", "valid_from")]),
    ({"valid_from": "2027-02-30"}, [("invalid_date", "valid_from")]),
    ({"valid_from": "2027-01-01T00:00"}, [("invalid_date", "valid_from")]),
    ({"valid_from": "2027-01-01T00:00:30Z"}, [("invalid_date", "valid_from")]),
    ({"valid_from": "20270101"}, [("invalid_date", "valid_from")]),
    ({"valid_from": "1999-12-31"}, [("invalid_date", "valid_from")]),
    ({"valid_from": 20270101}, [("invalid_date", "valid_from")]),
    ({"valid_until": "2027-01-01"}, [("invalid_period", "valid_until")]),
    ({"valid_until": "9999-12-31"}, [("invalid_date", "valid_until")]),
    ({"minimum_amount": 0.5}, [("float_amount", "minimum_amount")]),
    ({"minimum_amount": "-1"}, [("negative_amount", "minimum_amount")]),
    ({"proration": "hours"}, [("invalid_choice", "proration")]),
    ({"net_days": "30"}, [("invalid_number", "net_days")]),
    ({"net_days": -1}, [("invalid_number", "net_days")]),
    ({"net_days": 366}, [("invalid_number", "net_days")]),
    ({"net_days": True}, [("invalid_number", "net_days")]),
    ({"charges": {}}, [("invalid_type", "charges")]),
    ({"charges": ["base"]}, [("invalid_type", "charges[0]"), ("missing_field", "charges[0].id")]),
    ({"charges": [{"flat_amount": "1"}]}, [("missing_field", "charges[0].id")]),
    ({"charges": [{"id": "base"}, {"id": "base"}]}, [("duplicate_id", "charges[1].id")]),
    ({"charges": [{"id": "cpu"}, {"id": "base", "flat_amount": 0.5}]}, [("float_amount", "charges[1].flat_amount")]),
    ({"charges": [{"id": "base", "amount": "1"}]}, [("unknown_field", "charges[0].amount")]),
    ({"charges": [{"id": "bse", "flat_amount": "1"}]}, [("unknown_charge", "charges[0].id")]),
    ({"charges": [{"id": "own", "model": "flat", "flat_amount": "1"}]}, [("missing_field", "charges[0].name")]),
    ({"charges": [{"id": "base", "model": None}]}, [("unknown_price_model", "charges[0].model")]),
    ({"charges": [{"id": "base", "amount": None}]}, [("unknown_field", "charges[0].amount")]),
    ({"charges": [{"id": "cpu", "unit_amount": None}]}, [("missing_field", "charges[0].unit_amount")]),
    ({"charges": [{"id": "cpu", "meter": "nometer"}]}, [("unknown_meter", "charges[0].meter")]),
    ({"charges": [{"id": "base", "flat_amount": 10**30}]}, [("invalid_document", "")]),
    ({"limits": {"nometer": {"quantity": "1"}}}, [("unknown_meter", "limits.nometer")]),
    ({"limits": {"cpu": None}}, [("unknown_field", "limits.cpu")]),
    ({"limits": []}, [("invalid_type", "limits")]),
    (
        {"minimum_amount": "1", "charges": [{"id": "minimum", "minimum_amount": "2"}]},
        [("contradiction", "minimum_amount")],
    ),
    (
        {"net_days": 999, "currency": "nix", "valid_from": "yesterday"},
        [("unknown_currency", "currency"), ("invalid_date", "valid_from"), ("invalid_number", "net_days")],
    ),
]


@pytest.mark.parametrize(("fields", "faults"), WRONG, ids=[str(fields)[:60] for fields, _ in WRONG])
async def test_a_contract_that_makes_no_sense_is_refused(fields: dict[str, Any], faults: list[tuple[str, str]]) -> None:
    office = Office(None)
    assert await office.refusals(**fields) == faults
    assert await office.rows() == []


@pytest.mark.parametrize("document", [None, [], "text", 5, {}])
async def test_what_is_no_contract_at_all_is_refused(document: object) -> None:
    with pytest.raises(InvalidInputError):
        await add_contract(document, store=Office(None).memory, now=NOW)


async def test_several_minimums_must_be_named() -> None:
    office = Office(None)
    twice = {"id": "floor", "name": "Floor", "model": "minimum", "minimum_amount": "1"}
    document = TIERS["enterprise"].document
    office.memory = MemoryContractStore(
        {office.tenant: "UTC"}, {"enterprise": {**document, "charges": [*document["charges"], twice]}}, METERS
    )
    assert await office.refusals(minimum_amount="9") == [("ambiguous_minimum", "minimum_amount")]


async def test_a_contract_is_shown_with_what_it_makes_of_the_plan(office: Office) -> None:
    added = await office.add(
        minimum_amount="6000",
        net_days=30,
        proration="days",
        valid_until="2028-01-01",
        charges=[{"id": "cpu", "unit_amount": "0.04"}],
    )
    shown = version_text(added.stored, TIERS["enterprise"].document, NOW)
    assert shown.splitlines() == [
        f"{office.contract} version 1: {office.tenant} on enterprise, planned, from 2027-01-01 until 2028-01-01",
        "  proration: days",
        "  invoices are due after 30 days",
        "  minimum.minimum_amount  5000 → 6000  +20.0 %",
        "  cpu.unit_amount         0.05 → 0.04  -20.0 %",
    ]
    assert [state_of(added.stored, when) for when in (NOW, at(1), at(12), at(1, year=2028))] == [
        "planned",
        "valid",
        "valid",
        "ended",
    ]
    assert "planned" in list_text([added.stored], NOW).splitlines()[1]
    assert list_text([], NOW) == "no contracts"


@pytest.mark.integration
async def test_other_stages_read_what_counts(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    office, other = Office(settings), Office(settings)
    await office.add()
    await office.add(valid_from="2026-12-01", valid_until="2027-02-01")
    await other.add()
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection:
        found = await read_contracts(connection, [office.tenant, "nobody"])
        everyone = await read_contracts(connection)
    assert [(one.version, one.validity) for one in found[office.tenant]] == [
        (2, "2026-12-01T00:00:00Z/2027-02-01T00:00:00Z")
    ], "what was withdrawn does not count"
    assert set(found) == {office.tenant}
    assert {office.tenant, other.tenant} <= set(everyone)
    pieces = contract_periods(found[office.tenant], OCTOBER)
    assert pieces == [(OCTOBER, None)]


@pytest.mark.integration
async def test_two_at_once_are_refused_by_the_store_itself(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    office = Office(settings)
    stored = (await office.add()).stored
    meanwhile = replace(stored.contract, contract_id=f"late-{office.tenant}", valid_from=at(6), valid_until=at(7))
    with pytest.raises(ContractInUseError, match="contracts_never_overlap"):
        await office.put(replace(stored, contract=meanwhile))


async def test_the_contract_in_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "catalogues.md").read_text()
    document, _ = read_yaml(text.split("```yaml\n")[1].split("```")[0].encode(), "docs/catalogues.md")
    office = Office(None, "Europe/Berlin")
    added = await office.add(**{**document, "contract": office.contract, "tenant": office.tenant})
    shown = version_text(added.stored, TIERS["enterprise"].document, NOW)
    for line in text.split("$ meterbook contract add acme.yaml\n")[1].splitlines()[1:5]:
        assert line in shown


@pytest.mark.integration
async def test_an_id_of_another_tenant_is_refused(settings: Settings) -> None:
    await apply_files(settings, shipped_files())
    office, other = Office(settings), Office(settings)
    await office.add()
    other.contract = office.contract
    assert await other.refusals(valid_from="2028-01-01") == [("contract_of_other", "contract")]
    async with office.open() as store:
        [stored] = await store.versions(office.contract)
    with pytest.raises(ContractInUseError):
        await other.put(stored)
