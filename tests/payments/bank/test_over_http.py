"""The bank desk over HTTP on the real PostgreSQL: from a file to a paid invoice, each request as often as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from api.application import create_app
from payments.bank.clerk import BankClerk
from tests.api.conftest import Fakes
from tests.api.test_bad_input import assert_refused
from tests.payments.bank.scene import Scene
from tests.payments.bank.write_statements import write_mt940

pytestmark = pytest.mark.integration
BANK = "/api/v1/bank"


@pytest.fixture
async def client(scene: Scene) -> AsyncIterator[httpx2.AsyncClient]:
    clerk = BankClerk(
        scene.pool,
        lambda: [scene.account],
        tolerances={"EUR": Decimal(10)},
        is_exact_confirmed=False,
        clock=scene.clock,
    )
    app = create_app(replace(Fakes().dependencies(), bank=clerk))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
        yield client


async def bring(client: httpx2.AsyncClient, scene: Scene, *entries: Any) -> list[str]:
    """Import a statement twice and return its entries' ids."""
    content = write_mt940(scene.statement(*entries))
    answers = [await client.post(f"{BANK}/statements?file=october.sta&by=ada", content=content) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200], answers[0].text
    first, again = (answer.json()["statements"][0] for answer in answers)
    assert (first["new"], again["new"], again["new_entries"]) == (True, False, [])
    return [entry["entry_id"] for entry in first["new_entries"]]


async def test_from_a_file_to_a_paid_invoice(client: httpx2.AsyncClient, scene: Scene) -> None:
    number = await scene.invoice(await scene.tenant("Zephyr Ltd"), "1190.00")
    paid = scene.told("1185.00", f"Invoice {number}", payer="ZEPHYR LIMITED")
    entry, _ = await bring(client, scene, paid, scene.told("-1.50", "fee"))
    (proposed,) = (await client.get(f"{BANK}/proposals", params={"entry": entry})).json()["data"]
    # number 60 + short 20 + name 20
    assert (proposed["proposals"][0]["score"], proposed["proposals"][0]["invoices"][0]["fee"]) == (100, "5.00")

    url, body = f"{BANK}/entries/{entry}/confirm", {"proposed": True, "by": "ada"}
    assert_refused(await client.post(url, json=body), 422, "missing_idempotency_key")
    answers = await asyncio.gather(
        *(client.post(url, json=body, headers={"Idempotency-Key": f"key-{entry}"}) for _ in range(4))
    )
    assert [answer.status_code for answer in answers] == [200] * 4, answers[0].text
    done = answers[0].json()
    assert all(answer.json() == done for answer in answers)
    (made,) = done["allocations"]
    assert (done["left"], made["fee"], made["confirmed_by"]) == ("0.00", "5.00", "ada")
    await scene.deliver()
    assert await scene.invoice_state(number) == ("paid", Decimal("1190.00"), Decimal(0))
    another = await client.post(url, json=body, headers={"Idempotency-Key": f"other-{entry}"})
    assert_refused(another, 409, "already_confirmed")
    otherwise = {"invoices": [{"number": number}]}
    used = await client.post(url, json=otherwise, headers={"Idempotency-Key": f"key-{entry}"})
    assert_refused(used, 409, "key_used")
    accounts = (await client.get(f"{BANK}/accounts")).json()["data"]
    (account,) = [one for one in accounts if one["account_id"] == scene.account.account_id]
    assert (account["gap"], account["open_entries"], account["balance"]) == ("0.00", 0, "2183.50")


async def test_a_part_is_put_onto_its_invoice_once_and_the_rest_is_credit(
    client: httpx2.AsyncClient, scene: Scene
) -> None:
    tenant = await scene.tenant()
    number = await scene.invoice(tenant, "80.00")
    (entry,) = await bring(client, scene, scene.told("100.00", "thanks"))
    url, part = f"{BANK}/entries/{entry}/confirm", {"invoices": [{"number": number, "amount": "40.00"}]}
    # Without its key the second of these would put another 40.00 onto the invoice.
    for _ in range(2):
        answer = await client.post(url, json=part, headers={"Idempotency-Key": f"part-{entry}"})
        assert (answer.status_code, answer.json()["left"]) == (200, "60.00")
    await scene.deliver()
    assert (await scene.invoice_state(number))[1:] == (40, 40)
    rest = {"rest": "credit", "tenant_id": tenant}
    done = await client.post(url, json=rest, headers={"Idempotency-Key": f"rest-{entry}"})
    assert [(one["kind"], one["amount"]) for one in done.json()["allocations"]] == [("credit", "60.00")]
    assert await scene.entry_state(entry) == ("done", 100)


async def test_a_transfer_that_was_taken_back_is_owed_again(client: httpx2.AsyncClient, scene: Scene) -> None:
    number = await scene.invoice(await scene.tenant(), "50.00")
    (came,) = await bring(client, scene, scene.told("50.00", number))
    headers = {"Idempotency-Key": f"came-{came}"}
    answer = await client.post(f"{BANK}/entries/{came}/confirm", json={"proposed": True}, headers=headers)
    assert answer.status_code == 200, answer.text
    await scene.deliver()
    (went,) = await bring(client, scene, scene.told("-50.00", f"return {number}"))
    url, headers = f"{BANK}/entries/{went}/confirm", {"Idempotency-Key": f"went-{went}"}
    both = await client.post(url, json={"returns": came, "rest": "held"}, headers=headers)
    assert_refused(both, 422, "contradiction")
    # What was refused has not used its key up.
    assert (await client.post(url, json={"returns": came}, headers=headers)).status_code == 200
    await scene.deliver()
    assert await scene.invoice_state(number) == ("finalized", Decimal(0), Decimal(50))


async def test_an_entry_is_rejected_and_waits_again(client: httpx2.AsyncClient, scene: Scene) -> None:
    (entry,) = await bring(client, scene, scene.told("12.00", "Zinsen"))
    url = f"{BANK}/entries/{entry}"
    assert_refused(await client.post(f"{url}/reject", json={"reason": " "}), 422, "missing_reason")
    for _ in range(2):
        done = (await client.post(f"{url}/reject", json={"reason": "interest"})).json()
        assert (done["entry_id"], done["status"], done["note"]) == (entry, "rejected", "interest")
    headers = {"Idempotency-Key": f"k-{entry}"}
    refused = await client.post(f"{url}/confirm", json={"rest": "held", "tenant_id": "x"}, headers=headers)
    assert_refused(refused, 409, "entry_rejected")
    for _ in range(2):
        assert (await client.post(f"{url}/reopen", json={})).json()["status"] == "open"
    assert_refused(await client.post(f"{BANK}/entries/bent_nothing/reopen", json={}), 404, "not_found")


@pytest.mark.parametrize(
    ("query", "content", "code"),
    [
        ("file=x.sta", b"", "empty"),
        ("file=x.sta", b":20:A\n:25:4711\n:28C:1\n:60F:C261001EUR1,00\n:62F:C261002EUR1,00\n", "unknown_account"),
        ("file=x.csv", b"a;b\n1;2\n", "unknown_format"),
        ("file=x.csv&profile=no-such", b"a;b\n1;2\n", "unknown_profile"),
        ("file=x.csv&format=pdf", b"a", "invalid_parameter"),
        ("file=x.sta&by=4242424242424242", b":20:A", "card_number"),
    ],
)
async def test_files_that_are_no_statements_are_refused_whole(
    query: str, content: bytes, code: str, client: httpx2.AsyncClient
) -> None:
    answer = await client.post(f"{BANK}/statements?{query}", content=content)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"invoices": [{"number": "A", "amount": "1e99"}]}, "invalid_parameter"),
        ({"invoices": [{"number": "A", "amount": -1}]}, "invalid_parameter"),
        ({"rest": "spent"}, "invalid_parameter"),
        ({"proposed": True, "invoices": [{"number": "A"}]}, "contradiction"),
        ({"nothing": 1}, "invalid_parameter"),
    ],
)
async def test_what_makes_no_sense_is_refused(body: dict[str, Any], code: str, client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{BANK}/entries/bent_x/confirm", json=body, headers={"Idempotency-Key": "k"})
    assert_refused(answer, 422, code)


async def test_it_stands_in_the_api_description(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {path.removeprefix(BANK) for path in paths if path.startswith(BANK)} == {
        "/statements", "/proposals", "/entries/{entry}/confirm", "/entries/{entry}/reject", "/entries/{entry}/reopen",
        "/accounts",
    }  # fmt: skip
