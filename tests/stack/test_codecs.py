"""Compression on the wire: what goes in comes out, in whatever pieces and frames it arrives."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import lz4.frame
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from runtime.stack.clickhouse.codecs import decoder, encoder
from runtime.stack.clickhouse.exceptions import ClickHouseError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
ENCODINGS = sorted(COMPRESS)
# LZ4's decompressor may keep the last byte until it sees what follows.
HELD_BACK = {"lz4": 1}


def _decode(encoding: str, body: bytes, piece: int) -> bytes:
    decode = decoder(encoding)
    plain = b"".join(decode.decode(body[place : place + piece]) for place in range(0, len(body), piece))
    decode.finish()
    return plain


@given(st.sampled_from(ENCODINGS), st.lists(st.binary(max_size=500), min_size=1, max_size=5), st.integers(1, 100))
def test_frames_one_after_another_are_decoded_in_any_pieces(encoding: str, frames: list[bytes], piece: int) -> None:
    body = b"".join(COMPRESS[encoding](frame) for frame in frames)
    assert _decode(encoding, body, piece) == b"".join(frames)


@given(st.sampled_from([*ENCODINGS, "br"]), st.binary(min_size=1, max_size=500), st.data())
def test_a_body_that_is_cut_off_is_refused(encoding: str, plain: bytes, data: st.DataObject) -> None:
    body = (COMPRESS | {"br": brotli.compress})[encoding](plain)
    cut = data.draw(st.integers(1, len(body) - 1))
    with pytest.raises(ClickHouseError):
        _decode(encoding, body[:cut], len(body))


@pytest.mark.parametrize("encoding", [*ENCODINGS, "br"])
def test_bytes_that_are_not_the_encoding_are_refused(encoding: str) -> None:
    with pytest.raises(ClickHouseError):
        _decode(encoding, b"this is plain text and not compressed at all" * 10, 1000)


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_a_plain_body_passes(encoding: str) -> None:
    assert _decode(encoding, b"abc", 2) == b"abc"
    assert _decode(encoding, b"", 2) == b""


@given(st.sampled_from([*ENCODINGS, "br"]), st.lists(st.binary(min_size=1, max_size=2000), max_size=6))
def test_each_piece_of_an_answer_can_be_read_when_it_arrives(encoding: str, pieces: list[bytes]) -> None:
    encode = encoder(encoding)
    assert encode is not None
    assert encode.name == encoding
    decode = decoder(encoding)
    sent = received = b""
    for piece in pieces:
        sent += piece
        received += decode.decode(encode.encode(piece))
        assert sent.startswith(received)
        assert len(sent) - len(received) <= HELD_BACK.get(encoding, 0)
    assert received + decode.decode(encode.finish()) == sent
    decode.finish()


@pytest.mark.parametrize(
    ("accepted", "picked"),
    [
        ("", None),
        ("identity", None),
        ("gzip, deflate", "gzip"),
        ("deflate;q=1.0", "deflate"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("LZ4", "lz4"),
    ],
)
def test_the_encoding_is_picked_as_clickhouse_picks(accepted: str, picked: str | None) -> None:
    encode = encoder(accepted)
    assert (encode and encode.name) == picked
