"""Dead letters on the real Kafka and PostgreSQL: found by place and time, sent back byte for byte; the command, too."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from typer.testing import CliRunner

from api.application import create_app
from core.dead_letter import DeadLetter
from core.errors import NotFoundError, UnavailableError
from metering.commands import app
from metering.dead_letters.adapters.kafka_letters import KafkaLetters, KafkaLetterSender
from metering.dead_letters.desk import AlreadySettledError, DeadLetterDesk, open_desk
from metering.dead_letters.domain.letter import Place
from metering.dead_letters.domain.letter_filter import LetterFilter
from metering.dead_letters.domain.replay import Replay
from runtime.processes.api import open_dependencies
from runtime.settings import Settings, load_settings
from tests.metering.dead_letters.memory import dead

pytestmark = pytest.mark.integration
Put = Callable[..., Any]


@pytest.fixture
def code() -> str:
    """A code of its own: the topics are shared."""
    return f"code-{uuid4().hex[:12]}"


@pytest.fixture
async def put(settings: Settings) -> AsyncIterator[Put]:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=f"letters-{uuid4()}", max_request_size=20_000_000
    )
    await producer.start()

    async def put(
        letters: list[DeadLetter], topic: str = "usage.rejected", partition: int = 1, at_ms: int | None = None
    ) -> list[Place]:
        """Put letters aside in one transaction, as the meter worker does; an aborted one stands before them."""
        transaction = producer.transaction()
        await transaction.__aenter__()
        await producer.send(topic, b"aborted", partition=partition, headers=letters[0].headers())
        await producer.abort_transaction()
        async with producer.transaction():
            sent = [
                await producer.send(
                    topic,
                    letter.body,
                    key=b"acme",
                    partition=partition,
                    headers=[*letter.headers(), ("ce_type", b"llm")],
                    timestamp_ms=at_ms,
                )
                for letter in letters
            ]
        places = [await confirmed for confirmed in sent]
        return [Place(place.topic, place.partition, place.offset) for place in places]

    yield put
    await producer.stop()


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[DeadLetterDesk]:
    async with open_desk(settings) as desk:
        yield desk


async def record_at(settings: Settings, place: Place) -> Any:
    reader = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await reader.start()
    try:
        where = TopicPartition(place.topic, place.partition)
        reader.assign([where])
        reader.seek(where, place.offset)
        return await reader.getone(where)
    finally:
        await reader.stop()


async def test_letters_of_committed_transactions_are_listed_over_all_partitions(
    desk: DeadLetterDesk, put: Put, code: str
):
    now = int(time.time() * 1_000)
    first = await put([dead(code), dead(code)], partition=0, at_ms=now)
    second = await put([dead(code)], partition=3, at_ms=now + 1)
    third = await put([dead(code)], topic="billing.rejected", at_ms=now + 2)
    page = await desk.page(LetterFilter(code=code), order="newest", limit=3, cursor=None)
    assert [found.head.place for found in page.letters] == [*third, *second, first[1]]
    rest = await desk.page(LetterFilter(code=code), order="newest", limit=3, cursor=page.cursor)
    assert [found.head.place for found in rest.letters] == [first[0]]
    assert rest.cursor is None
    usage = LetterFilter("usage.rejected", code, since_ms=now, until_ms=now + 1)
    page = await desk.page(usage, order="oldest", limit=9, cursor=None)
    assert [found.head.place for found in page.letters] == first
    assert page.letters[0].head.tenant == "acme"


async def test_letters_are_loaded_by_place_and_gone_ones_left_out(settings: Settings, put: Put, code: str):
    places = [place for _ in range(3) for place in await put([dead(code, body=b"x" * 400), dead(code, body=None)])]
    letters = KafkaLetters(settings)
    try:
        marker = Place(places[-1].topic, places[-1].partition, places[-1].offset + 1)
        beyond = [Place("usage.rejected", 1, 10**9), Place("usage.rejected", 99, 0), Place("coffee", 0, 0)]
        found = await letters.load([*places, marker, *beyond], 10**9)
        assert [letter.place for letter in found] == places
        assert [letter.body for letter in found] == [b"x" * 400, None] * 3
        assert found[0].headers == (("ce_type", b"llm"),)
        assert [letter.place for letter in await letters.load(places, 401)] == places[:3]
    finally:
        await letters.close()


async def test_a_replay_arrives_byte_for_byte_and_is_on_record(
    desk: DeadLetterDesk, settings: Settings, put: Put, code: str
):
    body = b' {"subject": "letters-nobody/c", "id" :"\xc3\xbc"}'
    (place,) = await put([dead(code, body=body)])
    done = await desk.replay_letter(
        *(place.topic, place.partition, place.offset),
        actor="ann",
        reason="mended",
        again=False,
        dry_run=False,
        mended=None,
    )
    topic, partition, offset = done["sent"].split("/")
    record = await record_at(settings, Place(topic, int(partition), int(offset)))
    assert (record.topic, record.key, record.value) == ("usage.events", b"letters-nobody", body)
    assert record.headers == (("ce_type", b"llm"),)
    shown = await desk.find_letter(place.topic, place.partition, place.offset)
    assert (shown["state"], shown["body_text"], shown["actions"][0]["sent"]) == (
        "replayed",
        body.decode(),
        done["sent"],
    )
    with pytest.raises(AlreadySettledError):
        await desk.discard_letter(place.topic, place.partition, place.offset, actor="ann", reason="no")
    with pytest.raises(NotFoundError):
        await desk.find_letter(place.topic, 99, 0)


async def test_counts_follow_what_is_put_aside_and_settled(desk: DeadLetterDesk, put: Put, code: str):
    places = await put([dead(code) for _ in range(5)])
    await desk.counts()
    await desk.discard(places[:2], actor="ann", reason="a test")
    counts, is_complete = await desk.counts()
    assert is_complete
    assert [(count.letters, count.open) for count in counts if count.code == code] == [(5, 3)]


async def test_a_broker_that_is_away_is_an_outage(tmp_path: Path):
    away = load_settings(home=tmp_path, kafka_url="127.0.0.1:1")
    letters, sender = KafkaLetters(away, call_seconds=5), KafkaLetterSender(away)
    try:
        with pytest.raises(UnavailableError):
            await letters.bounds(["usage.rejected"])
        (result,) = await sender.send([Replay("usage.events", None, b"acme", (), b"{}")])
        assert isinstance(result, str)
    finally:
        await letters.close()
        await sender.close()


async def test_the_apis_process_has_the_desk(settings: Settings, put: Put, code: str):
    (place,), base = await put([dead(code)]), "/api/v1/dead-letters"
    async with open_dependencies(settings) as dependencies:
        transport = httpx2.ASGITransport(app=create_app(dependencies), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api.invalid") as client:
            listed = (await client.get(base, params={"code": code})).json()
            assert [letter["letter"] for letter in listed["data"]] == [str(place)]
            done = await client.post(f"{base}/{place}/discard", json={"by": "ann", "reason": "a test"})
            assert (done.status_code, done.json()["outcome"]) == (200, "discarded")
            again = await client.post(f"{base}/{place}/replay", json={"by": "ann"})
            assert (again.status_code, again.json()["code"]) == (409, "already_settled")
            assert (await client.get(f"{base}/{place}")).json()["state"] == "discarded"
            assert (await client.get(f"{base}/usage.rejected/0/999999999")).status_code == 404
            counts = (await client.get(f"{base}/counts")).json()
            assert [(c["open"], c["letters"]) for c in counts["data"] if c["code"] == code] == [(0, 1)]


# The command


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))

    def run(*arguments: str, exit_code: int = 0, text: str | None = None) -> Any:
        result: list[Any] = []
        # A thread of its own: the command brings its own event loop.
        thread = threading.Thread(
            target=lambda: result.append(CliRunner().invoke(app, ["deadletters", *arguments], input=text))
        )
        thread.start()
        thread.join()
        (done,) = result
        assert done.exit_code == exit_code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in arguments else done.output

    return run


async def test_the_command_lists_shows_replays_and_discards(run: Any, put: Put, code: str, tmp_path: Path):
    good, bad, cut = await put(
        [
            dead(code, reason="no meter\x1b[2J"),
            dead(code, body=b"\xff\x00{"),
            dead(code, body=b"ab", reason="x (only the first 2 of 3 bytes are kept here)"),
        ]
    )
    listed = run("list", "--code", code, "--json")
    assert [letter["letter"] for letter in listed["data"]] == [str(cut), str(bad), str(good)]
    table = run("list", "--code", code, "--limit", "2")
    assert "--cursor" in table
    assert "\x1b[2J" not in run("list", "--code", code)
    assert "ff 00 7b" in run("show", str(bad))
    assert run("show", str(bad), "--json")["body_hex"] == "ff007b"

    tried = run("replay", "--code", code, "--dry-run", "--json", exit_code=1)["data"]
    assert [(letter["outcome"], letter["code"]) for letter in tried] == [
        ("would_replay", "missing_field"), ("would_replay", "not_json"), ("refused", "body_incomplete"),
    ]  # fmt: skip
    mended = tmp_path / "mended.json"
    mended.write_text('{"subject":"letters-nobody"}')
    done = run("replay", str(bad), "--edit", str(mended), "--by", "ann", "--json")["data"][0]
    assert done["sent"].startswith("usage.events/")
    action = run("show", str(bad), "--json")["actions"][0]
    assert action["letter_sha256"] != action["sent_sha256"]

    assert "replayed" in run("replay", "--from-file", "-", text=f"{good}\n\n")
    assert run("discard", "--code", code, "--reason", "its source is gone", "--json")["data"][0]["letter"] == str(cut)
    assert run("list", "--code", code, "--json")["data"] == []
    states = [letter["state"] for letter in run("list", "--code", code, "--state", "all", "--json")["data"]]
    assert states == ["discarded", "replayed", "replayed"]
    counts = {count["code"]: count for count in run("list", "--counts", "--json")["data"]}
    assert (counts[code]["letters"], counts[code]["open"]) == (3, 0)
    assert code in run("list", "--counts", "--topic", "usage.rejected")


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("replay", "usage.rejected/0/0", "--code", "a"),
        ("replay", "--code", "a", "--edit", "/dev/null"),
        ("replay", "nonsense"),
        ("replay", "--from-file", "/no/such/file"),
        ("list", "--since", "yesterday"),
        ("list", "--topic", "usage.events"),
        ("list", "--state", "gone"),
        ("list", "--counts", "--code", "a"),
        ("discard", "usage.rejected/0/0", "--reason", " "),
    ],
)
def test_a_wrong_call_is_refused(run: Any, arguments: tuple[str, ...]):
    # The reason is told by the whole program's entry point.
    assert run(*arguments, exit_code=1) == ""
