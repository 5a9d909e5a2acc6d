"""The private parts of Faust and aiokafka that the batch transport stands on must be as in the pinned versions."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any, NamedTuple

import faust
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment
from faust.app.base import App
from faust.transport.drivers import aiokafka as driver

from streams.adapters import batch_transport
from streams.adapters.batch_transport import BatchConsumer, BatchTransport, batch_topic, create_batch_app
from streams.adapters.lanes import Batch


class Record(NamedTuple):
    offset: int
    timestamp: int


def placed(records: list[Record], start: int, end: int) -> list[Record]:
    found = batch_transport._PlacedRecords(records)
    found.start, found.end = start, end
    return found


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> faust.App:
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    monkeypatch.setattr(fetcher, "FetchResult", fetcher.FetchResult)
    return create_batch_app("test-batch", "127.0.0.1:1,127.0.0.1:2")


def test_the_versions_are_those_that_were_read() -> None:
    assert (version("faust-streaming"), version("aiokafka")) == ("0.15.3", "0.14.0")


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (driver.Consumer, "_getmany", ["self", "active_partitions", "timeout"]),
        (driver.Consumer, "_to_message", ["self", "tp", "record"]),
        (driver.Consumer, "_new_consumer_thread", ["self"]),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer", ["self"]),
        (driver.AIOKafkaConsumerThread, "call_thread", ["self", "fun", "args", "kwargs"]),
        (fetcher.PartitionRecords, "_consumer_record", ["self", "tp", "record"]),
        (fetcher.FetchResult, "getall", ["self", "max_records"]),
        (GroupCoordinator, "fetch_committed_offsets", ["self", "partitions"]),
        (driver.Consumer, "perform_seek", ["self"]),
        (App, "_new_transport", ["self"]),
        (App, "_create_directories", ["self"]),
    ],
    ids=lambda value: getattr(value, "__name__", None) if not isinstance(value, list) else "",
)
def test_what_is_replaced_or_called_is_there_with_its_parameters(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_the_consumer_thread_passes_only_arguments_that_aiokafka_knows() -> None:
    source = inspect.getsource(batch_transport._ConsumerThread._create_worker_consumer)
    passed = {line.split("=")[0].strip() for line in source.splitlines() if line.startswith(" " * 12) and "=" in line}
    assert passed - set(inspect.signature(AIOKafkaConsumer).parameters) == set()
    assert {"group_id", "isolation_level", "enable_auto_commit", "fetch_max_wait_ms"} <= passed


def test_faust_still_creates_its_parts_through_what_is_replaced() -> None:
    assert "_new_transport" in inspect.getsource(App.transport.fget)
    assert "_create_directories" in inspect.getsource(App.on_first_start)
    assert "_new_consumer_thread" in inspect.getsource(driver.Consumer.__init__)
    assert "self._getmany(" in inspect.getsource(driver.Consumer._wait_next_records)
    assert "_create_worker_consumer" in inspect.getsource(driver.AIOKafkaConsumerThread._create_consumer)


def test_records_leave_the_fetcher_as_the_parser_made_them(app: faust.App) -> None:
    assert fetcher.PartitionRecords is batch_transport._LightRecords
    assert "PartitionRecords(" in inspect.getsource(fetcher.Fetcher)
    parsed = object()
    assert batch_transport._LightRecords._consumer_record(None, None, parsed) is parsed


def test_the_app_uses_the_batch_transport_and_keeps_nothing_itself(app: faust.App) -> None:
    assert isinstance(app.transport, BatchTransport)
    assert isinstance(app.consumer, BatchConsumer)
    assert [str(url) for url in app.conf.broker] == ["kafka://127.0.0.1:1", "kafka://127.0.0.1:2"]
    assert app.conf.processing_guarantee.value == "at_least_once"
    assert (app.conf.table_standby_replicas, app.conf.topic_allow_declare, app.conf.web_enabled) == (0, False, False)
    assert batch_topic(app, "usage.events").acks is False


async def test_nothing_is_fetched_for_a_partition_that_is_behind(
    app: faust.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[set[TopicPartition], float]] = []

    async def getmany(self: Any, active_partitions: set[TopicPartition], timeout: float) -> dict[Any, list[Record]]:
        asked.append((active_partitions, timeout))
        return {tp: placed([Record(7, 1_000)], 7, 8) for tp in active_partitions}

    monkeypatch.setattr(driver.Consumer, "_getmany", getmany)
    behind, other = TopicPartition("usage.events", 0), TopicPartition("usage.events", 1)
    app.is_full = lambda tp: tp == behind
    assert set(await app.consumer._getmany({behind, other}, 5.0)) == {other}
    assert await app.consumer._getmany({behind}, 5.0) == {}
    app.is_full = lambda tp: False
    assert set(await app.consumer._getmany({behind, other}, 5.0)) == {behind, other}
    assert asked[0][0] == {other}
    assert asked[0][1] < 1
    assert asked[1] == ({behind, other}, 5.0)


def test_a_batch_is_one_message_at_its_last_record(app: faust.App) -> None:
    records = [Record(3, 1_000), Record(4, 2_500)]
    batch = Batch(records, 3, 5)
    message = app.consumer._to_message(TopicPartition("usage.events", 2), batch)
    assert message.value is batch
    assert (message.topic, message.partition, message.offset, message.timestamp) == ("usage.events", 2, 4, 2.5)


async def test_what_one_fetch_brought_for_a_partition_is_one_batch(
    app: faust.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetched(self: Any, active_partitions: Any, timeout: float) -> dict[Any, list[Record]]:
        return {
            "a": placed([Record(1, 1), Record(2, 2)], 1, 4),
            "b": placed([], 0, 0),
            "c": placed([Record(9, 9)], 7, 10),
        }

    monkeypatch.setattr(driver.Consumer, "_getmany", fetched)
    found = await BatchConsumer._getmany(app.consumer, active_partitions=set("abc"), timeout=1.0)
    ranges = {
        place: [(batch.start, batch.end, len(batch.records)) for batch in batches] for place, batches in found.items()
    }
    assert ranges == {"a": [(1, 4, 2)], "c": [(7, 10, 1)]}


class Fetched:
    """What aiokafka's `PartitionRecords` is to a fetch result: records, and where the next fetch begins."""

    def __init__(self, start: int, records: list[Record], end: int) -> None:
        self.next_fetch_offset, self._records, self._end = start, list(records), end

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Record:
        if not self._records:
            self.next_fetch_offset = self._end
            raise StopIteration
        record = self._records.pop(0)
        self.next_fetch_offset = record.offset + 1
        return record


async def test_a_batch_covers_the_offsets_without_records_before_it(app: faust.App) -> None:
    place = TopicPartition("usage.journal", 0)
    assignment = Assignment({place})
    state = assignment.state_value(place)
    state.reset_to(10)

    def fetch(start: int, offsets: list[int], end: int, most: int | None = None) -> tuple[int, int, list[int]]:
        records = [Record(offset, 1) for offset in offsets]
        result = fetcher.FetchResult(
            place, assignment=assignment, partition_records=Fetched(start, records, end), backoff=0
        )
        found = result.getall(most)
        return found.start, found.end, [record.offset for record in found]

    assert fetch(10, [10, 12], 14) == (10, 14, [10, 12])
    assert fetch(14, [], 16)[2] == []  # nothing but the marks of transactions
    assert batch_transport.handed_out_up_to(state) == 14
    assert fetch(16, [], 17)[2] == []
    assert batch_transport.handed_out_up_to(state) == 14
    assert fetch(17, [18], 19) == (14, 19, [18])
    assert batch_transport.handed_out_up_to(state) == 19
    assert fetch(19, [19, 20, 21], 22, most=2) == (19, 21, [19, 20])
    # Sent elsewhere after a stretch without records: that stretch is no part of what comes then.
    assert fetch(21, [], 30)[2] == []
    state.seek(40)
    assert batch_transport.handed_out_up_to(state) == 40
    assert fetch(40, [41], 42) == (40, 42, [41])
    # A result of an offset that is not wanted any more.
    assert fetch(11, [11], 12) == (0, 0, [])


async def test_faust_drops_nothing_for_having_read_it_before(app: faust.App) -> None:
    place = TopicPartition("usage.events", 0)
    app.consumer._read_offset[place] = 7
    assert app.consumer._read_offset[place] is None
    app.consumer._read_offset.pop(place, None)
    await app.consumer.perform_seek()
    assert "_read_offset.__getitem__" in inspect.getsource(driver.Consumer._drain_messages)
