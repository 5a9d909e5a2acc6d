"""A letter as found: its headers, whose it is, whether it is whole; and what a replay of it sends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Fault, InvalidInputError
from metering.dead_letters.domain.letter import (
    Action,
    Place,
    digest_of,
    parse_place,
    read_letter,
    state_of,
    tenant_of,
)
from metering.dead_letters.domain.letter_filter import LetterFilter
from metering.dead_letters.domain.replay import Replay, replay_of
from metering.dead_letters.tables import plain
from tests.metering.dead_letters.memory import dead

PLACE = Place("usage.rejected", 2, 1043)
START = datetime(2026, 11, 20, 12, tzinfo=UTC)


def action(kind: str, minute: int, done: int | None) -> Action:
    begun = START + timedelta(minutes=minute)
    done_at = None if done is None else START + timedelta(minutes=done)
    return Action(str(minute), PLACE, kind, "c", 0, "ann", "", "", None, None, begun, done_at)  # type: ignore[arg-type]


def test_a_letter_has_what_was_refused_and_the_source_records_own_headers():
    found = read_letter(PLACE, 5, b"acme", dead().body, [*dead(index=3).headers(), ("ce_type", b"llm")])
    assert (found.code, found.origin, found.index) == ("unknown_meter", Place("usage.events", 1, 17), 3)
    assert found.headers == (("ce_type", b"llm"),)
    assert found.tenant == "acme"


def test_a_record_without_our_headers_is_still_shown():
    found = read_letter(PLACE, 5, None, b"?", [("meterbook_code", b"x"), ("meterbook_partition", b"-")])
    assert (found.code, found.body, found.origin) == ("unreadable_letter", b"?", PLACE)
    assert isinstance(replay_of(found), Fault)


@given(st.binary(max_size=60), st.integers(0, 40), st.text(max_size=30))
def test_a_letter_that_was_cut_says_so_and_no_other_does(body: bytes, most: int, reason: str):
    letter = dead(reason=reason, body=body).fitting(most)
    assert letter.is_cut == (len(body) > most)


def test_a_reason_that_a_producer_made_look_like_a_cut_is_none():
    assert not dead(reason="no tenant (only the first 5 of 9 bytes are kept here)", body=b"123456").is_cut


@pytest.mark.parametrize(
    ("body", "tenant"),
    [
        (b'{"subject": "acme/customer-9", "type": 7}', "acme"),
        (b'[{"subject": "acme"}, {"subject": "acme/c"}]', "acme"),
        (b'[{"subject": "acme"}, {"subject": "globex"}]', None),
        (b'{"tenant_id": "acme", "period": "2026-10"}', "acme"),
        (b'{"subject": "a b"}', None),
        (b'{"subject": 7}', None),
        (b"[]", None),
        (b"\xff\x00", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_tenant_is_the_one_the_body_names(body: bytes | None, tenant: str | None):
    assert tenant_of(body) == tenant


@pytest.mark.parametrize(("key", "tenant"), [(b"acme", "acme"), (b"\xff", None), (b"a b", None), (None, None)])
def test_where_the_body_does_not_tell_the_key_may(key: bytes | None, tenant: str | None):
    assert read_letter(PLACE, 5, key, b"\x00", dead().headers()).tenant == tenant


@given(st.from_regex(r"[a-z.]{1,20}", fullmatch=True), st.integers(0, 999), st.integers(0, 2**50))
def test_a_place_is_read_as_it_is_written(topic: str, partition: int, offset: int):
    place = Place(topic, partition, offset)
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    "text", ["", "usage.rejected", "usage.rejected/1", "/1/2", "t/x/1", "t/1/-1", "t/1/²", "t/1/2/3"]
)
def test_anything_else_is_no_place(text: str):
    with pytest.raises(InvalidInputError, match="invalid_place"):
        parse_place(text)


@pytest.mark.parametrize(
    ("actions", "state"),
    [
        ([], "open"),
        ([action("replay", 1, None)], "open"),
        ([action("replay", 1, 2)], "replayed"),
        ([action("discard", 1, 1)], "discarded"),
        ([action("discard", 1, 1), action("replay", 3, 4)], "replayed"),
        ([action("discard", 1, 1), action("replay", 3, None)], "discarded"),
    ],
)
def test_a_letter_is_what_its_newest_finished_action_made_of_it(actions: list[Action], state: str):
    assert state_of(actions) == state


def letter(key: bytes | None = None, **changes: object):
    found = dead(**changes)
    return read_letter(PLACE, 5, key, found.body, [*found.headers(), ("ce_type", b"llm")])


def test_a_replay_sends_the_very_bytes_with_their_headers_to_where_the_tenant_is_counted():
    body = b' {"subject":"acme/c1" ,"id":"e1"}'
    assert replay_of(letter(b"globex", body=body)) == Replay(
        "usage.events", None, b"acme", (("ce_type", b"llm"),), body
    )


def test_a_body_that_names_no_tenant_keeps_its_key_or_its_partition():
    assert replay_of(letter(b"k", body=b"?")) == Replay("usage.events", None, b"k", (("ce_type", b"llm"),), b"?")
    assert replay_of(letter(None, body=b"?")) == Replay("usage.events", 1, None, (("ce_type", b"llm"),), b"?")


def test_a_billing_message_keeps_its_key():
    found = replay_of(letter(b"k", topic="invoicing.requests", body=b'{"tenant_id":"acme"}'))
    assert isinstance(found, Replay)
    assert (found.topic, found.key) == ("invoicing.requests", b"k")


def test_a_mended_body_goes_to_the_tenant_it_names():
    found = replay_of(letter(b"k", body=b"?"), b'{"subject":"globex"}')
    assert isinstance(found, Replay)
    assert (found.key, found.value, found.digest) == (b"globex", b'{"subject":"globex"}', digest_of(found.value))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"body": None}, "nothing_to_replay"),
        ({"topic": "usage.coffee"}, "unknown_topic"),
        ({"body": b"12", "reason": "large (only the first 2 of 9 bytes are kept here)"}, "body_incomplete"),
    ],
)
def test_what_cannot_be_sent_is_refused(changes: dict[str, object], code: str):
    found = replay_of(letter(b"k", **changes))
    assert isinstance(found, Fault)
    assert found.code == code


def test_a_letter_that_was_cut_can_be_mended():
    cut = letter(b"k", body=b"12", reason="large (only the first 2 of 9 bytes are kept here)")
    assert isinstance(replay_of(cut, b'{"subject":"acme"}'), Replay)


def test_all_faults_of_a_filter_are_told_at_once():
    with pytest.raises(InvalidInputError) as refused:
        LetterFilter("usage.events", since_ms=2, until_ms=2, state="gone")  # type: ignore[arg-type]
    assert [fault.code for fault in refused.value.faults] == ["unknown_topic", "unknown_state", "invalid_period"]


def test_nothing_in_a_letter_speaks_to_the_terminal():
    assert plain("a\x1b[2Jb\u202e\n") == "a\\x1b[2Jb\\u202e\\n"
    assert plain("größer\n", keep="\n") == "größer\n"
