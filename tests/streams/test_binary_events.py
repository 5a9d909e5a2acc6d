"""CloudEvents in binary mode on the topic: counted, corrected, put aside and sent home like any other."""

from __future__ import annotations

import json

from core.dead_letter import DeadLetter
from core.meters import Meter, Registry
from core.quantity import UNIT
from core.usage_event import IngestLimits, parse_event
from tests.streams.in_memory import BASE_MS, Record, cloud_event, count, log_of, partition_in_memory, void

REGISTRY = Registry.of(["acme", "globex"], [Meter("tokens", "token", "llm", "sum", "tokens", ("model",))])


def binary(
    offset: int, event_id: str, data: bytes = b'{"tokens": 2.50, "model": "m"}', **changes: str | None
) -> Record:
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": "s",
        "type": "llm",
        "subject": "acme",
        "time": "2023-11-16T18:19:30Z",
        **changes,
    }
    headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items() if text is not None]
    return Record(offset, BASE_MS, b"acme", data, (*headers, ("content-type", b"application/json")))


def test_binary_and_structured_events_are_one_kind() -> None:
    state = partition_in_memory()
    structured = Record(1, BASE_MS, b"acme", cloud_event("a", "llm", {"tokens": "2.5", "model": "m"}))
    entry = count(state, [binary(0, "a"), structured, binary(2, "b")], REGISTRY).entry
    assert (entry.accepted, entry.duplicates) == (2, 1)
    assert [(row.quantity, row.dimensions) for row in entry.windows] == [(str(5 * UNIT), ("m",))]


def test_a_binary_event_can_be_taken_out_again() -> None:
    state = partition_in_memory()
    log = [binary(0, "a"), binary(1, "b")]
    count(state, log, REGISTRY)
    entry = count(state, [Record(2, BASE_MS, b"acme", void("v", "a"))], REGISTRY, log_of(log)).entry
    assert [(row.quantity, row.events) for row in entry.windows] == [(str(5 * UNIT // 2), 1)]


def test_a_binary_event_that_cannot_be_read_keeps_its_headers_as_a_dead_letter() -> None:
    state = partition_in_memory()
    records = [binary(0, "a", time=None), binary(1, "b", b"{", time="2023-11-16T18:19:30Z"), binary(2, "c")]
    batch = count(state, records, REGISTRY)
    assert batch.entry.accepted == 1
    letters = [letter for letter, _ in batch.dead_letters]
    assert [(letter.code, letter.body) for letter in letters] == [
        ("missing_field", records[0].value),
        ("not_json", b"{"),
    ]
    for letter, record in zip(letters, records, strict=False):
        assert letter.source_headers == record.headers
        assert DeadLetter.from_record(letter.body, letter.headers()) == letter


def test_a_binary_event_that_is_judged_bad_is_kept_structured_so_that_it_can_be_replayed() -> None:
    state = partition_in_memory()
    batch = count(state, [binary(0, "a", type="other")], REGISTRY)
    [(letter, _)] = batch.dead_letters
    assert (letter.code, letter.source_headers) == ("unknown_meter", ())
    assert json.loads(letter.body or b"")["id"] == "a"


def test_a_binary_event_on_another_tenants_partition_is_sent_home_structured() -> None:
    state = partition_in_memory(lambda tenant: 3 if tenant == "globex" else 0)
    batch = count(state, [binary(0, "a", subject="globex")], REGISTRY)
    [(home, key, raw)] = batch.misplaced
    assert (home, key) == (3, b"globex")
    event = parse_event(raw, REGISTRY, IngestLimits(), BASE_MS * 1_000)
    assert getattr(event, "id", None) == "a"
