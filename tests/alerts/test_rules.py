"""Which thresholds hold for whom, what a rule may say, and how rules are stored."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import PoolTimeout

from core.alert_rules import AlertRule, AlertRules
from core.errors import ConflictError, InvalidInputError, NotFoundError
from core.thresholds import Threshold
from runtime.alert_rules import (
    AlertRulesCache,
    check_rule,
    delete_alert_rule,
    describe_rule,
    put_alert_rule,
    read_alert_rules,
)
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings, load_settings

NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)


def percent(rule_id: str, value: int, **more: Any) -> AlertRule:
    return AlertRule(rule_id, "percent", Decimal(value), **more)


def shown(rules: AlertRules, tenant: str = "acme", meter: str = "cpu") -> list[str]:
    return [f"{one.value:f} {one.kind}" for one in rules.thresholds_of(tenant, meter)]


def test_eighty_and_a_hundred_percent_hold_where_no_rule_does() -> None:
    assert shown(AlertRules.of((), (80, 100))) == ["80 percent", "100 percent"]
    assert AlertRules.of((), (80,)).thresholds_of("acme", "cpu") == (Threshold("percent", Decimal(80)),)


def test_the_most_specific_level_decides_alone() -> None:
    levels = [percent("all", 50), percent("meter", 60, meter_id="cpu"), percent("tenant", 70, tenant_id="acme")]
    levels.append(percent("both", 90, tenant_id="acme", meter_id="cpu"))
    for count, expected in enumerate((["80 percent"], ["50 percent"], ["60 percent"], ["70 percent"], ["90 percent"])):
        assert shown(AlertRules.of(levels[:count], (80,))) == expected
    rules = AlertRules.of(levels, (80,))
    assert shown(rules, "globex") == ["60 percent"]
    assert shown(rules, "globex", "gpu") == ["50 percent"]
    assert shown(rules, "acme", "gpu") == ["70 percent"]


def test_units_stand_beside_percent_and_a_disabled_rule_silences_its_level() -> None:
    rules = [AlertRule("units", "units", Decimal(5_000), meter_id="cpu")]
    assert shown(AlertRules.of(rules, (80,))) == ["80 percent", "5000 units"]
    rules.append(percent("off", 80, tenant_id="acme", enabled=False))
    assert shown(AlertRules.of(rules, (80,))) == ["5000 units"]
    assert shown(AlertRules.of(rules, (80,)), "globex") == ["80 percent", "5000 units"]


def money(rule_id: str, value: int, currency: str = "USD", **more: Any) -> AlertRule:
    return AlertRule(rule_id, "money", Decimal(value), currency=currency, **more)


def test_a_tenants_own_money_rules_replace_those_for_everyone_by_scope_and_currency() -> None:
    rules = AlertRules.of(
        [
            money("all", 100), money("all-eur", 90, "EUR"), money("all-llm", 10, meter_id="llm"),
            money("own", 500, tenant_id="acme"), money("own-more", 900, tenant_id="acme"),
            money("off", 1, tenant_id="quiet", enabled=False), money("base", 7, charge_id="base"),
        ],
        (),
    )  # fmt: skip
    assert [rule.rule_id for rule in rules.money_of("globex")] == ["all", "all-eur", "all-llm", "base"]
    assert [rule.rule_id for rule in rules.money_of("acme")] == ["own", "own-more", "all-eur", "all-llm", "base"]
    assert [rule.rule_id for rule in rules.money_of("quiet")] == ["all-eur", "all-llm", "base"]
    assert [rule.scope for rule in rules.money_of("globex")] == ["total", "total", "meter:llm", "charge:base"]


def test_channels_are_those_of_the_rules_that_made_the_threshold() -> None:
    rules = AlertRules.of(
        [
            percent("a", 80, tenant_id="acme", channels=("email",)), percent("b", 100, tenant_id="acme"),
            percent("c", 80, channels=("slack",)),
            money("m", 100, channels=("webhook",)), money("n", 50, meter_id="llm", channels=("slack",)),
            AlertRule("q", "anomaly", channels=("slack",)),
        ],
        (80, 100),
    )  # fmt: skip
    assert rules.channels_of("percent", "acme", "cpu", Decimal("80.00")) == ("email",)
    assert rules.channels_of("percent", "acme", "cpu", Decimal(100)) == ()
    assert rules.channels_of("percent", "globex", "cpu", Decimal(80)) == ("slack",)
    # The rule has gone meanwhile: everybody is told.
    assert rules.channels_of("percent", "acme", "cpu", Decimal(95)) == ()
    assert rules.channels_of("money", "acme", "", Decimal(100), "USD") == ("webhook",)
    assert rules.channels_of("money", "acme", "", Decimal(100), "EUR") == ()
    assert rules.channels_of("money", "acme", "llm", Decimal(50), "USD") == ("slack",)
    assert rules.channels_of("anomaly", "acme", "cpu", None) == ("slack",)


def test_anomalies_are_told_unless_a_rule_says_no() -> None:
    rules = AlertRules.of([AlertRule("off", "anomaly", tenant_id="acme", enabled=False)], ())
    assert (rules.wants_anomalies("acme", "cpu"), rules.wants_anomalies("globex", "cpu")) == (False, True)
    rules = AlertRules.of([*rules.rules, AlertRule("on", "anomaly", tenant_id="acme", meter_id="cpu")], ())
    assert (rules.wants_anomalies("acme", "cpu"), rules.wants_anomalies("acme", "gpu")) == (True, False)


@pytest.mark.parametrize(
    ("given_", "codes"),
    [
        ({}, {"unknown_kind"}),
        ({"kind": "percent"}, {"invalid_value"}),
        ({"kind": "percent", "value": 0.5}, {"invalid_value"}),
        ({"kind": "percent", "value": True}, {"invalid_value"}),
        ({"kind": "percent", "value": "-5"}, {"invalid_value"}),
        ({"kind": "percent", "value": "0"}, {"invalid_value"}),
        ({"kind": "percent", "value": "NaN"}, {"invalid_value"}),
        ({"kind": "percent", "value": "1e5"}, {"invalid_value"}),
        ({"kind": "percent", "value": "80", "currency": "USD"}, {"invalid_scope"}),
        ({"kind": "percent", "value": "80", "charge": "base"}, {"invalid_scope"}),
        ({"kind": "units", "value": "80"}, {"invalid_scope"}),
        ({"kind": "money", "value": "80"}, {"unknown_currency"}),
        ({"kind": "money", "value": "80", "currency": "ZZZ"}, {"unknown_currency"}),
        ({"kind": "money", "value": "80", "currency": "USD", "meter": "a", "charge": "b"}, {"invalid_scope"}),
        ({"kind": "anomaly", "value": "80"}, {"invalid_value"}),
        ({"kind": "percent", "value": "80", "channels": ["pigeon"]}, {"unknown_channel"}),
        ({"kind": "percent", "value": "80", "channels": "slack"}, {"unknown_channel"}),
        ({"kind": "percent", "value": "80", "enabled": 1}, {"invalid_type"}),
        ({"kind": "percent", "value": "80", "meter": ""}, {"invalid_type"}),
        ({"kind": 7, "tenant_id": 7, "colour": "red"}, {"unknown_kind", "invalid_type", "unknown_field"}),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_every_fault(given_: dict[str, Any], codes: set[str]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_rule("rule-1", given_)
    assert {fault.code for fault in refused.value.faults} == codes


@given(
    st.dictionaries(
        st.text(max_size=8), st.none() | st.text(max_size=8) | st.integers() | st.lists(st.text()), max_size=6
    )
)
def test_whatever_is_given_is_taken_or_refused(given_: dict[str, Any]) -> None:
    for document in (given_, {**given_, "kind": "money", "currency": "USD", "value": "5"}):
        try:
            rule = check_rule("rule", document)
        except InvalidInputError:
            continue
        assert check_rule("rule", {k: v for k, v in describe_rule(rule).items() if k != "rule_id"}) == rule


@pytest.mark.parametrize("rule_id", ["", "Rule", "-a", "a b", "a" * 65, "a/b"])
def test_an_id_that_is_none_is_refused(rule_id: str) -> None:
    with pytest.raises(InvalidInputError):
        check_rule(rule_id, {"kind": "anomaly"})


@pytest.mark.integration
async def test_rules_are_stored_replaced_and_removed(pool: Pool) -> None:
    tenant, meter = f"t-{uuid4().hex[:12]}", f"m_{uuid4().hex[:12]}"
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%s, 'T', 't@t.invalid', 'US', 'USD', now())",
            (tenant,),
        )
        await connection.execute(
            "INSERT INTO meters (meter_id, unit, event_type, aggregation, value_property, created_at)"
            " VALUES (%s, 'request', 'api.request', 'sum', 'requests', now())",
            (meter,),
        )
        written = [
            percent("a", 85, tenant_id=tenant, meter_id=meter, channels=("email", "slack")),
            AlertRule("b", "units", Decimal("0.5"), meter_id=meter),
            money("c", 100, tenant_id=tenant),
            money("d", 100, tenant_id=tenant, charge_id="base"),
            AlertRule("e", "anomaly", tenant_id=tenant, enabled=False),
        ]
        for rule in written:
            await put_alert_rule(connection, rule, NOW)
            await put_alert_rule(connection, rule, NOW)
        assert (await read_alert_rules(connection, (80,))).rules == tuple(written)
        await put_alert_rule(connection, percent("a", 95, tenant_id=tenant), NOW)
        assert shown(await read_alert_rules(connection, (80,)), tenant, meter) == ["95 percent", "0.5 units"]
        with pytest.raises(ConflictError):
            await put_alert_rule(connection, money("again", 100, tenant_id=tenant), NOW)
        for unknown in (percent("x", 1, tenant_id="nobody-there"), percent("x", 1, meter_id="nothing-there")):
            with pytest.raises(NotFoundError, match="there"):
                await put_alert_rule(connection, unknown, NOW)
        for rule in written:
            await delete_alert_rule(connection, rule.rule_id)
        with pytest.raises(NotFoundError):
            await delete_alert_rule(connection, "a")


@pytest.mark.integration
async def test_the_last_good_rules_serve_in_an_outage_and_none_are_made_up(pool: Pool, settings: Settings) -> None:
    async with pool.connection() as connection:
        await put_alert_rule(connection, percent("everyone", 66), NOW)
    async with create_pool(settings, max_size=1) as other:
        cache = AlertRulesCache(other, (80,), refresh_s=0)
        assert shown(await cache.get()) == ["66 percent"]
        await other.close()
        assert shown(await cache.get()) == ["66 percent"]
    away = load_settings(home=settings.home, postgres_url="postgresql://meterbook@127.0.0.1:1/meterbook")
    closed = create_pool(away, max_size=1)
    await closed.open(wait=False)
    with pytest.raises((PoolTimeout, OSError)):
        await AlertRulesCache(closed, (80,), refresh_s=0).get()
    await closed.close()
