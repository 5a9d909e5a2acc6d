"""Live usage, entitlements, grants and reservations over HTTP, on fakes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from core.calendar import Calendar
from core.errors import UnavailableError
from core.meters import Meter, Registry
from quotas.domain.entitlement import Entitlement, Feature
from quotas.domain.reading import read_freshness
from tests.api.conftest import METERS, Fakes, open_client
from tests.api.test_bad_input import assert_refused

CURRENT = "/api/v1/usage/current"
API = "/api/v1"
OCTOBER = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}


async def test_a_quota_adds_up_its_partitions_exactly(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.quotas.fields["acme", "api_requests", "2026-10"] = {
        "q0:0": "0.1", "n0:0": "1", "v0:0": "7", "q0:3": "4", "n0:3": "2", "v0:3": "8",
        "q3:0": "800.200000000001", "n3:0": "10", "v3:0": "9", "a": "sum", "at": "1792497540000",
    }  # fmt: skip
    fakes.quotas.freshness = {"0": 1_792_497_590_000, "1": 1_700_000_000_000, "3": 1_792_497_595_000}
    answer = await client.get(CURRENT, params={"tenant_id": "acme", "meter": "api_requests"})
    assert answer.json() == {
        "tenant_id": "acme",
        "meter": "api_requests",
        "unit": "request",
        "aggregation": "sum",
        "period": "2026-10",
        "window": OCTOBER,
        "used": "804.300000000001",
        "limit": "1000",
        "remaining": "195.699999999999",
        "percent": "80.43",
        "hard": False,
        "events": 13,
        "as_of": "2026-10-20T11:59:50Z",
        "stale": False,
    }


async def test_a_quota_nobody_used_is_zero_and_without_a_limit_says_so(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    answer = await client.get(CURRENT, params={"tenant_id": "globex", "meter": "agent_executions"})
    found = answer.json()
    assert (found["used"], found["events"], found["as_of"]) == ("0", 0, None)
    assert (found["limit"], found["remaining"], found["percent"], found["hard"]) == (None, None, None, None)


async def test_all_meters_come_as_a_list(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    answer = (await client.get(CURRENT, params={"tenant_id": "acme"})).json()
    assert [found["meter"] for found in answer["data"]] == ["api_requests", "agent_executions", "llm_input_tokens"]
    assert (answer["tenant_id"], answer["period"]) == ("acme", "2026-10")


async def test_overuse_has_nothing_remaining_and_a_zero_limit_is_full_at_once(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    use(fakes, "1250")
    over = (await client.get(CURRENT, params={"tenant_id": "acme", "meter": "api_requests"})).json()
    assert (over["remaining"], over["percent"]) == ("0", "125.00")
    fakes.entitlements.limit("acme", "api_requests", Decimal(0), hard=True)
    none = (await client.get(CURRENT, params={"tenant_id": "acme", "meter": "api_requests"})).json()
    assert (none["percent"], none["hard"]) == ("100.00", True)


async def test_nearly_all_is_never_said_to_be_all(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    use(fakes, "999.999999")
    found = (await client.get(CURRENT, params={"tenant_id": "acme", "meter": "api_requests"})).json()
    assert found["percent"] == "99.99"


async def test_an_hour_and_a_rolling_day_are_answered_without_the_months_limit(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    use(fakes, "5", period="2026-10-20T11")
    use(fakes, "7", period="2026-10-19T12")
    use(fakes, "100", period="2026-10-19T11")
    params = {"tenant_id": "acme", "meter": "api_requests", "period": "2026-10-20T11"}
    found = (await client.get(CURRENT, params=params)).json()
    assert (found["used"], found["limit"]) == ("5", None)
    day = (await client.get(CURRENT, params=params | {"period": "rolling:24h"})).json()
    assert (day["used"], day["limit"], day["period"]) == ("12", None, "rolling:24h")
    assert day["window"] == {"start": "2026-10-19T12:00:00Z", "end": "2026-10-20T12:00:00Z"}


async def test_a_year_is_the_sum_of_its_months_in_the_tenants_own_calendar(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    calendars = {"acme": Calendar("America/Mexico_City", 15)}
    fakes.registry.known = Registry.of(["acme"], METERS, calendars)
    for month, quantity in (("2025-12", "1"), ("2026-01", "10"), ("2026-10", "20.5")):
        use(fakes, quantity, period=month)
    use(fakes, "3", period="2026-10-15")
    params = {"tenant_id": "acme", "meter": "api_requests"}
    year = (await client.get(CURRENT, params=params | {"period": "current_year"})).json()
    assert (year["used"], year["period"]) == ("30.5", "2026")
    assert year["window"] == {"start": "2026-01-01T06:00:00Z", "end": "2027-01-01T06:00:00Z"}
    billing = (await client.get(CURRENT, params=params | {"period": "billing_period"})).json()
    assert (billing["used"], billing["period"]) == ("3", "2026-10-15")


SAMPLED = (
    Meter("seats", "seat", "seats", "latest", "n"),
    Meter("peak", "call", "calls", "max", "n"),
    Meter("users", "user", "login", "unique", "user"),
    Meter("storage", "GB-month", "disk", "time_weighted", "gb", weight_per="month"),
    Meter("latency", "ms", "call", "average", "ms"),
)


async def test_every_aggregation_is_read_its_own_way(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.registry.known = Registry.of(["acme"], SAMPLED)
    fakes.entitlements.meters = tuple(meter.meter_id for meter in SAMPLED)
    # 2026-10-20T12:00 is 19.5 days into a month of 31. 62 GB from the 11th day's start on: 9.5 days of 31 x 62 = 19.
    eleventh = int(datetime(2026, 10, 11, tzinfo=UTC).timestamp() * 1_000_000)
    fakes.quotas.fields |= {
        ("acme", "seats", "2026-09"): {"q0:0": "9", "n0:0": "1", "t0:0": "5", "l0:0": "0"},
        ("acme", "seats", "2026-10"): {"q0:0": "4", "n0:0": "3", "t0:0": "7", "l0:0": "0"},
        ("acme", "peak", "2026-09"): {"q0:0": "9", "n0:0": "1"},
        ("acme", "peak", "2026-10"): {"q0:0": "4", "n0:0": "3"},
        ("acme", "users", "2026"): {"q0:0": "12", "n0:0": "80"},
        ("acme", "storage", "2026-10"): {"q0:0": "0", "n0:0": "1", "l0:0": "62", "t0:0": str(eleventh)},
        ("acme", "latency", "2026-09"): {"q0:0": "10", "n0:0": "1"},
        ("acme", "latency", "2026-10"): {"q0:0": "10", "n0:0": "2"},
    }
    year = (await client.get(CURRENT, params={"tenant_id": "acme", "period": "current_year"})).json()
    used = {found["meter"]: found["used"] for found in year["data"]}
    assert used == {"seats": "4", "peak": "9", "users": "12", "storage": "19", "latency": "6.666666666667"}
    rolling = (await client.get(CURRENT, params={"tenant_id": "acme", "period": "rolling:1h"})).json()
    assert [found["meter"] for found in rolling["data"] if found["used"] is None] == ["users", "storage"]
    params = {"tenant_id": "acme", "meter": "storage", "period": "rolling:1h"}
    assert_refused(await client.get(CURRENT, params=params), 422, "not_rolling")


async def test_a_level_that_was_set_before_the_period_holds_in_it(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.registry.known = Registry.of(["acme"], SAMPLED)
    fakes.entitlements.meters = tuple(meter.meter_id for meter in SAMPLED)
    params = {"tenant_id": "acme", "meter": "storage"}
    fakes.quotas.fields["acme", "storage", "now"] = {"q0:0": "0", "n0:0": "1", "l0:0": "62", "t0:0": "1000"}
    # 62 GB all along: 19.5 of 31 days.
    assert (await client.get(CURRENT, params=params)).json()["used"] == "39"
    # In August it was 31 all along: September's row says that it changed there, July's what it was before.
    september = int(datetime(2026, 9, 2, tzinfo=UTC).timestamp() * 1_000_000)
    fakes.quotas.fields["acme", "storage", "now"]["t0:0"] = str(september)
    fakes.quotas.fields["acme", "storage", "2026-07"] = {"q0:0": "0", "n0:0": "1", "l0:0": "31", "t0:0": "1000"}
    august = (await client.get(CURRENT, params=params | {"period": "2026-08"})).json()
    assert august["used"] == "31"


@pytest.mark.parametrize("period", ["2026-13", "last_month", "rolling:745h", "rolling:0h", "2026-10-07", "rolling:24"])
async def test_periods_that_do_not_exist_are_refused(period: str, client: httpx2.AsyncClient) -> None:
    answer = await client.get(CURRENT, params={"tenant_id": "acme", "period": period})
    assert answer.status_code == 422


async def test_a_wiped_view_is_marked_stale_and_a_missing_one_is_503(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.quotas.stale = True
    assert (await client.get(CURRENT, params={"tenant_id": "acme", "meter": "api_requests"})).json()["stale"] is True
    fakes.quotas.failure = UnavailableError("live quotas cannot be read now")
    answer = await client.get(CURRENT, params={"tenant_id": "acme"})
    assert_refused(answer, 503, "unavailable")
    assert answer.headers["retry-after"]


def test_a_partition_without_usage_has_no_time_to_tell() -> None:
    fields = {"p0": '{"journal_offset": -1, "at_ms": 0}', "p1": '{"journal_offset": 4, "at_ms": 1792500000000}'}
    assert read_freshness(fields) == {"1": 1_792_500_000_000}


async def test_an_entitlement_says_who_gives_it_and_what_is_left(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    use(fakes, "900")
    found = (await client.get(f"{API}/entitlements/acme/api_requests")).json()
    assert found == {
        "tenant_id": "acme",
        "feature": "api_requests",
        "kind": "metered",
        "origin": "limit",
        "has_access": True,
        "reason": None,
        "meter": "api_requests",
        "unit": "request",
        "period": "2026-10",
        "window": OCTOBER,
        "usage": "900",
        "limit": "1000",
        "hard": False,
        "balance": "100",
        "overage": "0",
        "reserved": "0",
        "sources": [
            {
                "source": "limit", "priority": 0, "amount": "1000", "gave": "900", "left": "100",
                "expires_at": "2026-11-01T00:00:00Z",
            }
        ],
        "as_of": None,
        "stale": False,
    }  # fmt: skip


async def test_only_a_hard_limit_denies_and_what_is_reserved_counts(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    url = f"{API}/entitlements/acme/api_requests"
    use(fakes, "1200")
    soft = (await client.get(url)).json()
    assert (soft["has_access"], soft["overage"], soft["balance"]) == (True, "200", "0")
    fakes.entitlements.limit("acme", "api_requests", Decimal(1000), hard=True)
    stopped = (await client.get(url)).json()
    assert (stopped["has_access"], stopped["reason"]) == (False, "limit_reached")
    use(fakes, "600")
    await client.post(f"{API}/reservations", json={"tenant_id": "acme", "meter": "api_requests", "amount": "400"})
    found = (await client.get(url)).json()
    assert (found["has_access"], found["reserved"], found["balance"]) == (False, "400", "0")
    fakes.decisions.failure = UnavailableError("filling")
    unknown = (await client.get(url)).json()
    assert (unknown["reserved"], unknown["stale"]) == (None, True)


@pytest.mark.parametrize(
    ("account", "past_due_is_refused", "reason"),
    [
        ("current", True, None),
        ("grace", True, None),
        ("past_due", False, None),
        ("past_due", True, "account_past_due"),
        ("suspended", False, "account_suspended"),
        ("collected", False, "account_suspended"),
    ],
)
async def test_a_suspended_account_has_access_to_nothing_until_it_is_restored(
    account: str, past_due_is_refused: bool, reason: str | None, fakes: Fakes
) -> None:
    await fakes.entitlements.put_feature(Feature("sso", "Single sign-on", "boolean"), fakes.clock.now())
    sso = Entitlement(fakes.entitlements.features["sso"], "tenant", value=True)
    await fakes.entitlements.put_entitlement(sso, tenant="acme", plan=None, created_at=NOW)
    fakes.past_due_is_refused = past_due_is_refused
    hold = {"tenant_id": "acme", "meter": "api_requests", "amount": "1"}
    async with open_client(fakes) as client:
        before = await client.post(f"{API}/reservations", json=hold, headers={"idempotency-key": "before"})
        fakes.entitlements.accounts["acme"] = account
        listed = (await client.get(f"{API}/entitlements/acme")).json()["data"]
        assert {(one["has_access"], one["reason"]) for one in listed} == {(reason is None, reason)}
        held = await client.post(f"{API}/reservations", json=hold)
        if reason is None:
            assert held.status_code == 201
        else:
            assert_refused(held, 409, reason)
        # What was promised before stays promised, and its usage is counted.
        again = await client.post(f"{API}/reservations", json=hold, headers={"idempotency-key": "before"})
        assert again.json() == before.json()
        url = f"{API}/reservations/{before.json()['reservation_id']}/commit"
        assert (await client.post(url, json={"tenant_id": "acme", "amount": "1"})).status_code == 200
        fakes.entitlements.accounts["acme"] = "current"
        restored = (await client.get(f"{API}/entitlements/acme/api_requests")).json()
        assert (restored["has_access"], restored["reason"]) == (True, None)
        assert (await client.get(f"{API}/entitlements/globex/api_requests")).json()["has_access"] is True


async def test_a_tenants_own_entitlement_comes_before_its_plans_and_switches_have_values(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    books = fakes.entitlements
    for feature in (Feature("sso", "Single sign-on", "boolean"), Feature("support", "Support", "static")):
        await books.put_feature(feature, fakes.clock.now())
    sso, support = books.features["sso"], books.features["support"]
    await books.put_entitlement(Entitlement(sso, "plan", value=True), tenant=None, plan="pro", created_at=NOW)
    await books.put_entitlement(
        Entitlement(support, "plan", value={"hours": 8}), tenant=None, plan="pro", created_at=NOW
    )
    await books.put_entitlement(
        Entitlement(support, "tenant", value={"hours": 24}), tenant="acme", plan=None, created_at=NOW
    )
    books.plan_of["acme"] = "pro"
    listed = (await client.get(f"{API}/entitlements/acme")).json()["data"]
    found = {each["feature"]: (each["has_access"], each.get("value"), each["origin"]) for each in listed}
    assert found["sso"] == (True, True, "plan")
    assert found["support"] == (True, {"hours": 24}, "tenant")
    other = (await client.get(f"{API}/entitlements/globex/sso")).json()
    assert (other["has_access"], other["value"], other["origin"]) == (False, False, "none")
    assert other["reason"] == "not_given"
    assert_refused(await client.get(f"{API}/entitlements/acme/nothing"), 404, "not_found")
    assert_refused(await client.get(f"{API}/entitlements/nobody/sso"), 404, "not_found")


NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)


async def test_a_grant_is_burned_after_the_limit_and_explained(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    body = {
        "tenant_id": "acme", "feature": "api_requests", "amount": "500", "expires_at": "2026-10-25T00:00:00+00:00",
        "reason": "sorry", "effective_at": "2026-10-10T00:00:00Z",
    }  # fmt: skip
    made = await client.post(f"{API}/grants", json=body, headers={"idempotency-key": "g-1"})
    assert made.status_code == 201
    assert (made.json()["amount"], made.json()["priority"]) == ("500", 100)
    again = await client.post(f"{API}/grants", json=body, headers={"idempotency-key": "g-1"})
    assert again.json() == made.json()
    other = await client.post(f"{API}/grants", json=body | {"amount": "5"}, headers={"idempotency-key": "g-1"})
    assert_refused(other, 409, "conflict")
    # 900 before the grant began, 400 since: 100 of the limit are left then, so 300 are the grant's.
    use(fakes, "1300")
    fakes.usage_history.events["acme", "api_requests"] = [(datetime(2026, 10, 5, tzinfo=UTC), 900)]
    found = (await client.get(f"{API}/entitlements/acme/api_requests")).json()
    assert [(s["gave"], s["left"]) for s in found["sources"]] == [("1000", "0"), ("300", "200")]
    assert (found["balance"], found["overage"]) == ("200", "0")
    listed = (await client.get(f"{API}/grants", params={"tenant_id": "acme"})).json()["data"]
    assert [each["grant_id"] for each in listed] == [made.json()["grant_id"]]
    voided = await client.post(f"{API}/grants/{made.json()['grant_id']}/void")
    assert voided.status_code == 200
    assert (await client.get(f"{API}/grants", params={"tenant_id": "acme"})).json()["data"] == []
    found = (await client.get(f"{API}/entitlements/acme/api_requests")).json()
    assert (found["balance"], found["overage"]) == ("0", "300")


async def test_a_grant_without_a_date_begins_with_the_hour_and_its_repetition_too(
    client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    body = {"tenant_id": "acme", "feature": "api_requests", "amount": 500}
    fakes.clock.travel_to("2026-10-20T12:59:00")
    first = (await client.post(f"{API}/grants", json=body, headers={"idempotency-key": "k"})).json()
    fakes.clock.travel_to("2026-10-20T13:01:00")
    second = (await client.post(f"{API}/grants", json=body, headers={"idempotency-key": "k"})).json()
    assert first == second
    assert first["effective_at"] == "2026-10-20T12:00:00Z"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": "x"}, "invalid_body"),
        ({"amount": "0"}, "invalid_amount"),
        ({"amounts": "1"}, "invalid_body"),
        ({"effective_at": "2026-10-10T00:30:00Z"}, "not_on_the_hour"),
        ({"effective_at": "2026-10-10T00:00:00"}, "no_time_zone"),
        ({"recurrence": "weekly"}, "invalid_body"),
        ({"rollover_min": "2"}, "invalid_rollover"),
        ({"feature": "sso"}, "not_grantable"),
    ],
)
async def test_grants_that_make_no_sense_are_refused(
    change: dict[str, Any], code: str, client: httpx2.AsyncClient, fakes: Fakes
) -> None:
    fakes.entitlements.features["sso"] = Feature("sso", "Single sign-on", "boolean")
    body = {"tenant_id": "acme", "feature": "api_requests", "amount": "1"} | change
    assert_refused(await client.post(f"{API}/grants", json=body), 422, code)


async def test_a_reservation_is_held_committed_and_released(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    fakes.entitlements.limit("acme", "api_requests", Decimal(1000), hard=True)
    use(fakes, "900")
    body = {"tenant_id": "acme", "meter": "api_requests", "amount": "80"}
    held = await client.post(f"{API}/reservations", json=body, headers={"idempotency-key": "r-1"})
    assert held.status_code == 201
    name = held.json()["reservation_id"]
    assert held.json()["event"] == {"source": "meterbook:reservations", "id": name}
    again = await client.post(f"{API}/reservations", json=body, headers={"idempotency-key": "r-1"})
    assert again.json()["reservation_id"] == name
    other = await client.post(f"{API}/reservations", json=body | {"amount": "5"}, headers={"idempotency-key": "r-1"})
    assert_refused(other, 409, "idempotency_conflict")
    problem = assert_refused(await client.post(f"{API}/reservations", json=body), 409, "quota_exceeded")
    assert "20 left" in problem["detail"]
    url = f"{API}/reservations/{name}"
    more = await client.post(f"{url}/commit", json={"tenant_id": "acme", "amount": "81"})
    assert_refused(more, 409, "exceeds_hold")
    done = (await client.post(f"{url}/commit", json={"tenant_id": "acme", "amount": "30"})).json()
    assert (done["status"], done["amount"]) == ("committed", "30")
    assert (await client.get(url, params={"tenant_id": "acme"})).json()["status"] == "committed"
    assert_refused(await client.get(url, params={"tenant_id": "globex"}), 404, "not_found")
    assert (await client.post(f"{url}/release", json={"tenant_id": "acme"})).json()["status"] == "released"
    assert_refused(
        await client.post(f"{url}/commit", json={"tenant_id": "acme", "amount": "1"}), 409, "reservation_over"
    )


async def test_a_soft_limit_and_grants_leave_room(client: httpx2.AsyncClient, fakes: Fakes) -> None:
    use(fakes, "1000")
    body = {"tenant_id": "acme", "meter": "api_requests", "amount": "50"}
    assert (await client.post(f"{API}/reservations", json=body)).status_code == 201
    fakes.entitlements.limit("acme", "api_requests", Decimal(1000), hard=True)
    fakes.reservations.rows.clear()
    fakes.decisions.held.clear()
    assert_refused(await client.post(f"{API}/reservations", json=body), 409, "quota_exceeded")
    grant = {"tenant_id": "acme", "feature": "api_requests", "amount": "49.5"}
    assert (await client.post(f"{API}/grants", json=grant)).status_code == 201
    assert_refused(await client.post(f"{API}/reservations", json=body), 409, "quota_exceeded")
    assert (await client.post(f"{API}/reservations", json=body | {"amount": "49.5"})).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "not_json"),
        (b'{"tenant_id":"acme","meter":"api_requests","amount":"-1"}', 422, "invalid_amount"),
        (b'{"tenant_id":"acme","meter":"api_requests","amount":"1","ttl_seconds":0}', 422, "invalid_ttl"),
        (b'{"tenant_id":"acme","meter":"none","amount":"1"}', 404, "not_found"),
        (b'{"tenant_id":"nobody","meter":"api_requests","amount":"1"}', 404, "not_found"),
        (b'{"tenant_id":"acme","meter":"api_requests","amount":"NaN"}', 422, "invalid_amount"),
        (b'{"tenant_id":"acme","meter":"api_requests","amount":"1e400"}', 422, "invalid_amount"),
    ],
)
async def test_bad_reservations_are_refused(body: bytes, status: int, code: str, client: httpx2.AsyncClient) -> None:
    assert_refused(await client.post(f"{API}/reservations", content=body), status, code)


def use(fakes: Fakes, quantity: str, *, period: str = "2026-10") -> None:
    fakes.quotas.fields["acme", "api_requests", period] = {"q0:0": quantity, "n0:0": "1", "a": "sum"}
