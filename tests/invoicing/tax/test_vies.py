"""VIES: what it says is kept, and whatever is no answer never becomes "invalid"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from core.clock import ManualClock
from core.errors import InvalidInputError, UnavailableError
from invoicing.adapters.vies import Vies, requester_of
from invoicing.check_vat_numbers import check_vat_numbers
from invoicing.tax_ports import VatAnswer
from tests.standins.vies_server import ViesStandIn

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SELLER = "DE136695976"
HOLDER = ("SOCIETE TEST SA", "1 RUE DE LA PAIX\n75002 PARIS")


@pytest.fixture
async def server() -> AsyncIterator[ViesStandIn]:
    server = ViesStandIn()
    server.valid["FR40303265045"] = HOLDER
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def vies(server: ViesStandIn) -> AsyncIterator[Vies]:
    vies = Vies(server.url, timeout_seconds=0.5)
    yield vies
    await vies.close()


async def test_a_number_in_use_comes_with_its_consultation_number_and_holder(server: ViesStandIn, vies: Vies) -> None:
    answer = await vies.check("FR40303265045", SELLER, NOW)
    assert answer == VatAnswer(
        "FR40303265045", True, NOW, answer.consultation, SELLER, "SOCIETE TEST SA", "1 RUE DE LA PAIX 75002 PARIS"
    )
    assert answer.consultation.startswith("WAPIAAAA")
    assert server.asked == [
        {
            "countryCode": "FR",
            "vatNumber": "40303265045",
            "requesterMemberStateCode": "DE",
            "requesterNumber": "136695976",
        }
    ]


async def test_without_asker_there_is_no_consultation_number(vies: Vies) -> None:
    assert (await vies.check("FR40303265045", "", NOW)).consultation == ""


async def test_a_number_out_of_use_is_invalid(vies: Vies) -> None:
    answer = await vies.check("IE6433435F", SELLER, NOW)
    assert (answer.valid, answer.name, answer.consultation) == (False, "", "")


async def test_a_register_that_does_not_tell_leaves_the_holder_open(server: ViesStandIn, vies: Vies) -> None:
    server.valid["DE129273398"] = HOLDER
    answer = await vies.check("DE129273398", SELLER, NOW)
    assert (answer.valid, answer.name, answer.address) == (True, "", "")


@pytest.mark.parametrize(
    "kind",
    [
        "ms_unavailable", "ms_max_concurrent", "global_max_concurrent", "timeout", "service_unavailable", "ip_blocked",
        "server_error", "not_json", "other_number", "hang_after", "cut_before",
    ],
)  # fmt: skip
async def test_whatever_is_no_answer_is_not_checked_yet(server: ViesStandIn, vies: Vies, kind: str) -> None:
    server.faults.add({"kind": kind})
    with pytest.raises(UnavailableError):
        await vies.check("FR40303265045", SELLER, NOW)
    assert (await vies.check("FR40303265045", SELLER, NOW)).valid


@pytest.mark.parametrize(("kind", "path"), [("invalid_input", "vat_number"), ("invalid_requester", "requester")])
async def test_what_vies_refuses_names_whose_number_it_is(
    server: ViesStandIn, vies: Vies, kind: str, path: str
) -> None:
    server.faults.add({"kind": kind})
    with pytest.raises(InvalidInputError) as refused:
        await vies.check("FR40303265045", SELLER, NOW)
    assert [(fault.code, fault.path) for fault in refused.value.faults] == [("refused_by_vies", path)]


async def test_a_server_that_is_away_is_not_checked_yet() -> None:
    vies = Vies("http://127.0.0.1:9", timeout_seconds=0.5)
    with pytest.raises(UnavailableError):
        await vies.check("FR40303265045", SELLER, NOW)
    await vies.close()


class MemoryChecks:
    def __init__(self) -> None:
        self.kept: list[tuple[str, VatAnswer]] = []

    async def due(self, **_: object) -> list[tuple[str, str]]:
        return []

    async def record(self, tenant_id: str, answer: VatAnswer) -> bool:
        self.kept.append((tenant_id, answer))
        return True


async def test_one_member_state_that_is_away_keeps_no_other_from_being_asked(server: ViesStandIn, vies: Vies) -> None:
    server.faults.add({"kind": "ms_unavailable"})
    checks = MemoryChecks()
    numbers = [("away", "IE6433435F"), ("acme", "FR40303265045"), ("gone", "FR40303265045X")]
    found = await check_vat_numbers(numbers, register=vies, checks=checks, requester=SELLER, clock=ManualClock(NOW))
    assert [(one.tenant_id, one.answer and one.answer.valid) for one in found] == [
        ("away", None),
        ("acme", True),
        ("gone", False),
    ]
    assert "MS_UNAVAILABLE" in found[0].problem
    assert [tenant for tenant, _ in checks.kept] == ["acme", "gone"]


@pytest.mark.parametrize(
    ("number", "country", "asker"),
    [("DE136695976", "DE", "DE136695976"), ("", "DE", ""), ("00-0000000", "US", ""), ("980780684", "GB", "")],
)
def test_only_a_number_of_the_union_asks(number: str, country: str, asker: str) -> None:
    assert requester_of(number, country) == asker
