"""Whatever is agreed, amended and ended in whatever order: contracts never overlap, and what is past stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from catalogues.contracts.add_contract import add_contract
from catalogues.contracts.end_contract import ContractBegunError, end_contract
from core.errors import InvalidInputError, NotFoundError
from rating.domain.contract import Contract, contract_at
from tests.catalogues.memory import MemoryContractStore

START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 40
PLAN = {"name": "P", "currency": "USD", "charges": [{"id": "a", "name": "A", "model": "flat", "flat_amount": "1"}]}

days = st.integers(0, DAYS)
actions = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("xy"), days, st.one_of(st.none(), days), st.sampled_from("pq")),
    st.tuples(st.just("end"), st.sampled_from("xy"), st.one_of(st.none(), days), st.none(), st.none()),
)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


@given(st.lists(st.tuples(st.integers(0, 5), actions), max_size=12))
async def test_contracts_never_overlap_and_the_past_is_never_rewritten(
    steps: list[tuple[int, tuple[str, ...]]],
) -> None:
    store = MemoryContractStore({"t": "UTC"}, {"p": PLAN, "q": PLAN}, {})
    now = START
    for number, (passed, (verb, name, at, until, plan)) in enumerate(steps):
        now += timedelta(days=passed, hours=1)
        before = [one.contract for one in await store.contracts("t")]
        try:
            if verb == "add":
                await _add(store, name, plan, int(at), None if until is None else int(until), number, now)
            else:
                await end_contract(name, None if at is None else day(int(at)), store=store, now=now)
        except (InvalidInputError, ContractBegunError, NotFoundError):
            assert [one.contract for one in await store.contracts("t")] == before, "what was refused left no trace"
        after = [one.contract for one in await store.contracts("t")]
        assert not any(one.overlaps(two) for one in after for two in after if one is not two)
        for instant in (day(number) for number in range(DAYS)):
            for plan_id in "pq":
                held = _at(before, instant, plan_id)
                # A contract signed late may fill a gap of the past; nothing that counted there may change.
                if instant < now - timedelta(minutes=1) and held is not None:
                    assert _at(after, instant, plan_id) == held


async def _add(
    store: MemoryContractStore, name: str, plan: str, start: int, end: int | None, number: int, now: datetime
) -> None:
    document = {
        "contract": name,
        "tenant": "t",
        "plan": plan,
        "currency": "USD",
        "valid_from": day(start).date().isoformat(),
        "charges": [{"id": "a", "flat_amount": str(number)}],
    }
    if end is not None:
        document["valid_until"] = day(end).date().isoformat()
    await add_contract(document, store=store, now=now)


def _at(contracts: list[Contract], instant: datetime, plan_id: str) -> tuple[str, int] | None:
    found = contract_at(contracts, instant, plan_id=plan_id)
    return (found.contract_id, found.version) if found else None
