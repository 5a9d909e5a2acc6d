"""Who sends a request to ClickHouse's front, and what its parameters are."""

from __future__ import annotations

import base64
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlencode

import pytest

from runtime.stack.clickhouse.exceptions import ClickHouseError, from_engine
from runtime.stack.clickhouse.request import ClientGoneError, Request


def request(
    headers: dict[str, str] | None = None, messages: list[dict[str, Any]] | None = None, **arguments: str
) -> Request:
    left = iter(messages or [])

    async def receive() -> MutableMapping[str, Any]:
        return next(left, {"type": "http.disconnect"})

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "method": "POST",
        "path": "/",
        "headers": raw,
        "query_string": urlencode(arguments).encode(),
    }
    return Request(scope, receive)


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("sent", "password", "let_in"),
    [
        (request(), "", True),
        (request(), "secret", False),
        (request(basic("default:secret")), "secret", True),
        (request(basic("default:wrong")), "secret", False),
        (request(basic("mallory:secret")), "secret", False),
        (request({"X-ClickHouse-User": "default", "X-ClickHouse-Key": "secret"}), "secret", True),
        (request({"X-ClickHouse-Key": "pässwörd"}), "secret", False),
        (request(user="default", password="secret"), "secret", True),
        (request(user="default"), "secret", False),
        (request(basic(":")), "", True),
    ],
)
def test_who_is_let_in(sent: Request, password: str, let_in: bool) -> None:
    if let_in:
        sent.check_user(password)
        return
    with pytest.raises(ClickHouseError) as refusal:
        sent.check_user(password)
    assert (refusal.value.code, refusal.value.status) == (516, 403)


def test_damaged_credentials_are_refused() -> None:
    with pytest.raises(ClickHouseError) as refusal:
        request({"Authorization": "Basic not base64!"}).check_user("")
    assert refusal.value.status == 400


def test_parameters_are_told_apart_from_settings() -> None:
    sent = request(
        query="SELECT 1", database="d", max_threads="2", param_a="it's", query_id="q", session_id="s", user="default"
    )
    assert sent.settings == {"max_threads": "2"}
    assert sent.bind_parameters == {"a": "it's"}


async def test_a_form_gives_parameters_and_tables() -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT *\r\nFROM people\r\n'
        b'--B\r\nContent-Disposition: form-data; name="people"; filename="p.csv"\r\n'
        b"Content-Type: text/csv\r\n\r\n1,\xff\r\n\r\n--B--\r\n"
    )
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": body[:50], "more_body": True},
        {"type": "http.request", "body": body[50:]},
    ]
    sent = request({"Content-Type": "multipart/form-data; boundary=B"}, messages, people_types="UInt8,String")
    await sent.read_form()
    assert sent.arguments["query"] == "SELECT *\r\nFROM people"
    (table,) = sent.external_tables
    assert (table.name, table.structure, table.data) == ("people", "_1 UInt8, _2 String", b"1,\xff\r\n")
    assert sent.settings == {}


@pytest.mark.parametrize("kind", ["multipart/form-data", 'multipart/form-data; boundary=""'])
async def test_a_form_without_a_boundary_is_refused(kind: str) -> None:
    with pytest.raises(ClickHouseError) as refusal:
        await request({"Content-Type": kind}, [{"type": "http.request", "body": b"x"}]).read_form()
    assert refusal.value.code == 36


async def test_a_body_that_breaks_off_is_told() -> None:
    sent = request(messages=[{"type": "http.request", "body": b"half", "more_body": True}])
    pieces = sent.pieces()
    assert await anext(pieces) == b"half"
    with pytest.raises(ClientGoneError):
        await anext(pieces)


@pytest.mark.parametrize(
    ("said", "code", "status", "text"),
    [
        ("Streaming query failed: Code: 60. DB::Exception: no table. (UNKNOWN_TABLE)", 60, 404, "Code: 60. DB::E"),
        ("something of the binding", 1002, 500, "Code: 1002. DB::Exception: something of the binding"),
        ("", 1002, 500, "Code: 1002. DB::Exception: RuntimeError"),
    ],
)
def test_the_engines_words_become_clickhouses_errors(said: str, code: int, status: int, text: str) -> None:
    error = from_engine(RuntimeError(said))
    assert (error.code, error.status) == (code, status)
    assert error.text.startswith(text)
    assert error.body("26.9").endswith("(version 26.9)")
    assert from_engine(RuntimeError(error.body("26.9"))).body("1.0") == error.body("26.9")
