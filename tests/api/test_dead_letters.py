"""Dead letters over HTTP: what the desk is asked, and what never reaches it."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest

from core.errors import ConflictError, NotFoundError, UnavailableError
from tests.api.conftest import Fakes

BASE = "/api/v1/dead-letters"


async def test_a_list_is_asked_for_with_all_its_conditions(client: httpx2.AsyncClient, fakes: Fakes):
    fakes.dead_letters.answer = {"data": [], "next_cursor": None, "looked_at": 0}
    asked = {
        "topic": "usage.rejected",
        "code": "unknown_meter",
        "tenant_id": "acme",
        "since": "2026-11-01T00:00:00Z",
        "state": "all",
        "order": "oldest",
        "limit": "7",
        "cursor": "abc",
    }
    answer = await client.get(BASE, params=asked)
    assert (answer.status_code, answer.json()) == (200, fakes.dead_letters.answer)
    ((name, _, given),) = fakes.dead_letters.asked
    assert name == "list_letters"
    assert given == {
        "topic": "usage.rejected",
        "code": "unknown_meter",
        "tenant": "acme",
        "since": datetime(2026, 11, 1, tzinfo=UTC),
        "until": None,
        "state": None,
        "order": "oldest",
        "limit": 7,
        "cursor": "abc",
    }


async def test_open_letters_newest_first_are_what_is_listed(client: httpx2.AsyncClient, fakes: Fakes):
    await client.get(BASE)
    given = fakes.dead_letters.asked[0][2]
    assert (given["state"], given["order"], given["limit"]) == ("open", "newest", 50)


async def test_a_letter_is_named_by_its_place(client: httpx2.AsyncClient, fakes: Fakes):
    await client.get(f"{BASE}/counts")
    await client.get(f"{BASE}/usage.rejected/2/1043")
    await client.post(
        f"{BASE}/usage.rejected/2/1043/replay", json={"by": "ann", "reason": "mended", "mended_body": "größer"}
    )
    await client.post(f"{BASE}/usage.rejected/2/1043/discard", json={"by": "ann", "reason": "gone"})
    place = ("usage.rejected", 2, 1043)
    replay = {"actor": "ann", "reason": "mended", "again": False, "dry_run": False, "mended": "größer".encode()}
    assert fakes.dead_letters.asked == [
        ("count_letters", (), {}),
        ("find_letter", place, {}),
        ("replay_letter", place, replay),
        ("discard_letter", place, {"actor": "ann", "reason": "gone"}),
    ]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(NotFoundError("gone"), 404), (ConflictError("again"), 409), (UnavailableError("away"), 503)],
)
async def test_refusals_are_problems(client: httpx2.AsyncClient, fakes: Fakes, failure: Exception, status: int):
    fakes.dead_letters.failure = failure
    for answer in (
        await client.get(f"{BASE}/usage.rejected/2/1"),
        await client.post(f"{BASE}/usage.rejected/2/1/discard", json={"by": "ann", "reason": "gone"}),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("?limit=0", None),
        ("?limit=201", None),
        ("?state=gone", None),
        ("?order=random", None),
        ("?since=2026-11-01T00:00:00", None),
        ("?topic=../x", None),
        ("?tenant_id=a%20b", None),
        ("/usage.rejected/-1/0", None),
        ("/usage.rejected/0/99999999999999999999", None),
        ("/usage.rejected/0/0/replay", {}),
        ("/usage.rejected/0/0/replay", {"by": ""}),
        ("/usage.rejected/0/0/replay", {"by": "ann", "mended": "typo"}),
        ("/usage.rejected/0/0/discard", {"by": "ann"}),
    ],
)
async def test_nonsense_never_reaches_the_desk(
    client: httpx2.AsyncClient, fakes: Fakes, path: str, body: dict[str, str] | None
):
    answer = await (client.get(f"{BASE}{path}") if body is None else client.post(f"{BASE}{path}", json=body))
    assert answer.status_code == 422
    assert fakes.dead_letters.asked == []
