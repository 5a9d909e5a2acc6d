"""The batch run asks for each tenant once, and only when the period is over and its usage has landed."""

from __future__ import annotations

from datetime import datetime

import pytest

from core.clock import ManualClock
from core.errors import InvalidInputError, NotFoundError
from invoicing.follow_run import follow_run
from invoicing.run_invoicing import InvoicingRun, UsageBehindError, run_invoicing
from tests.invoicing.memory import MemoryRequests
from tests.invoicing.scene import Scene, at


class Progress:
    def __init__(self, settled: bool) -> None:
        self._settled = settled

    async def settled(self, as_of: datetime) -> bool:
        return self._settled


def scene() -> Scene:
    built = Scene()
    built.on("lite", "acme")
    built.on("zero", "free", started="2026-10-31T23:59")
    built.on("shared", "later", started="2026-11-01")
    built.on("shared", "gone", ended="2026-10-01")
    return built


async def run(requests: MemoryRequests, *, tenant: str | None = None, settled: bool | None = True) -> InvoicingRun:
    progress = None if settled is None else Progress(settled)
    clock = ManualClock(at("2026-11-01"))
    return await run_invoicing(
        "2026-10", tenant_id=tenant, register=scene().books, requests=requests, progress=progress, clock=clock
    )


async def test_each_tenant_with_a_subscription_in_the_period_is_asked_for_once() -> None:
    requests = MemoryRequests()
    done = await run(requests)
    assert [(request.tenant_id, request.period) for request in requests.sent] == [
        ("acme", "2026-10"),
        ("free", "2026-10"),
    ]
    assert done.requested == ("acme", "free")
    assert {request.run_id for request in requests.sent} == {done.run_id}


async def test_one_tenant_alone() -> None:
    requests = MemoryRequests()
    assert (await run(requests, tenant="free")).requested == ("free",)
    with pytest.raises(NotFoundError):
        await run(requests, tenant="later")
    assert len(requests.sent) == 1


async def test_parked_accounts_are_left_out_and_named() -> None:
    requests, books = MemoryRequests(), scene().books
    async with books.open_account("acme") as account:
        assert account is not None
        await account.park("sums disagree", at("2026-11-01"))
    done = await run_invoicing(
        "2026-10",
        tenant_id=None,
        register=books,
        requests=requests,
        progress=None,
        clock=ManualClock(at("2026-11-01")),
    )
    assert done.parked == (("acme", "sums disagree"),)
    assert [request.tenant_id for request in requests.sent] == ["free"]


async def test_nothing_is_asked_for_while_usage_is_behind_unless_told_so() -> None:
    requests = MemoryRequests()
    with pytest.raises(UsageBehindError):
        await run(requests, settled=False)
    assert requests.sent == []
    assert len((await run(requests, settled=None)).requested) == 2


async def test_an_open_period_is_refused() -> None:
    requests = MemoryRequests()
    with pytest.raises(InvalidInputError) as refused:
        await run_invoicing(
            "2026-10",
            tenant_id=None,
            register=scene().books,
            requests=requests,
            progress=None,
            clock=ManualClock(at("2026-10-31T23:59:59")),
        )
    assert refused.value.faults[0].code == "period_not_over"
    assert requests.sent == []


async def test_a_run_is_followed_until_nothing_of_it_waits() -> None:
    left, shown = iter([3, 3, 1, 0]), list[tuple[int, int]]()

    class Requests:
        async def waiting(self) -> int:
            return next(left)

    assert await follow_run(Requests(), lambda handled, of: shown.append((handled, of)), pause_seconds=0) == 3
    assert shown == [(0, 3), (0, 3), (2, 3), (3, 3)]
