"""Compression on the wire. Owns decoding request bodies and encoding responses, both as streams.

A body may be several compressed frames one after another: clickhouse-connect sends each block of an insert as an
LZ4 or zstd frame of its own. A decoder that stops after the first frame drops rows without a word, so every decoder
here starts anew at each frame's end, and `finish` refuses a body that stops inside a frame.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import lz4.frame

from runtime.stack.clickhouse.exceptions import (
    BROTLI_READ_FAILED,
    CANNOT_READ_ALL_DATA,
    LZ4_DECODER_FAILED,
    UNSUPPORTED_MEDIA_TYPE,
    ZLIB_INFLATE_FAILED,
    ZSTD_DECODER_FAILED,
    ClickHouseError,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

try:
    import brotli  # type: ignore[import-untyped]
except ImportError:  # an encoding that clients ask for only when they have it themselves
    brotli = None

_GZIP, _ZLIB = 31, 15
# The order in which ClickHouse's server picks among what a client accepts.
_PREFERRED = ("zstd", "br", "lz4", "gzip", "deflate")


class Decoder(Protocol):
    """Turns a compressed body back into plain bytes, piece by piece."""

    def decode(self, piece: bytes) -> bytes:
        """The plain bytes that this piece completes; raises `ClickHouseError` for bytes that are not the encoding."""
        ...

    def finish(self) -> None:
        """Called at the body's end; raises `ClickHouseError` when it ends inside a frame."""
        ...


class _Plain:
    def decode(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> None:
        return


class _Frames:
    """Frames one after another, each with a decompressor of its own (`eof`, `unused_data`, as the stdlib's have)."""

    def __init__(self, name: str, make: Callable[[], Any], code: int) -> None:
        self._name = name
        self._make = make
        self._code = code
        self._frame = make()
        self._begun = False

    def decode(self, piece: bytes) -> bytes:
        plain = []
        while piece:
            if self._frame.eof:
                self._frame = self._make()
            self._begun = True
            try:
                plain.append(self._frame.decompress(piece))
            # Each library has its own family of errors; RuntimeError is lz4's, EOFError comes after an end.
            except (zlib.error, zstd.ZstdError, RuntimeError, EOFError) as error:
                raise ClickHouseError(self._code, f"Cannot decode the body as {self._name}: {error}") from error
            piece = self._frame.unused_data if self._frame.eof else b""
        return b"".join(plain)

    def finish(self) -> None:
        if self._begun and not self._frame.eof:
            raise ClickHouseError(CANNOT_READ_ALL_DATA, f"The body ends inside a frame of {self._name}")


class _Brotli:
    def __init__(self) -> None:
        self._frame = brotli.Decompressor()
        self._begun = False

    def decode(self, piece: bytes) -> bytes:
        # Brotli tells neither where a stream ends within the bytes it was given nor gives back the rest, so one that
        # has ended is known before the next piece only: clients send each as a piece, or one for the whole body.
        if self._begun and self._frame.is_finished():
            self._frame = brotli.Decompressor()
        self._begun = True
        try:
            return bytes(self._frame.process(piece))
        except brotli.error as error:
            raise ClickHouseError(BROTLI_READ_FAILED, f"Cannot decode the body as br: {error}") from error

    def finish(self) -> None:
        if self._begun and not self._frame.is_finished():
            raise ClickHouseError(CANNOT_READ_ALL_DATA, "The body ends inside a stream of br")


def decoder(encoding: str) -> Decoder:
    """The decoder for a Content-Encoding; raises `ClickHouseError` (415) for one that is not known."""
    match encoding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "lz4":
            return _Frames("lz4", lz4.frame.LZ4FrameDecompressor, LZ4_DECODER_FAILED)
        case "zstd":
            return _Frames("zstd", zstd.ZstdDecompressor, ZSTD_DECODER_FAILED)
        case "gzip" | "x-gzip":
            return _Frames("gzip", lambda: zlib.decompressobj(_GZIP), ZLIB_INFLATE_FAILED)
        case "deflate":
            return _Frames("deflate", lambda: zlib.decompressobj(_ZLIB), ZLIB_INFLATE_FAILED)
        case "br" if brotli is not None:
            return _Brotli()
    raise ClickHouseError(UNSUPPORTED_MEDIA_TYPE, f"Unknown compression method: {encoding}")


class Encoder(Protocol):
    """Compresses a response piece by piece; each piece can be decoded when it arrives."""

    name: str

    def encode(self, piece: bytes) -> bytes:
        """The compressed bytes of this piece."""
        ...

    def finish(self) -> bytes:
        """The bytes that end the stream."""
        ...


class _Flushing:
    """A stream of one frame that is flushed after each piece, so that a slow query's rows do not wait."""

    def __init__(self, name: str, encode: Callable[[bytes], bytes], finish: Callable[[], bytes]) -> None:
        self.name = name
        self._encode = encode
        self._finish = finish

    def encode(self, piece: bytes) -> bytes:
        return self._encode(piece)

    def finish(self) -> bytes:
        return self._finish()


def encoder(accepted: str) -> Encoder | None:
    """The encoder for an Accept-Encoding header, picked as ClickHouse's server picks; None to send plain bytes."""
    names = {part.partition(";")[0].strip().lower() for part in accepted.split(",")}
    for name in _PREFERRED:
        if name in names and not (name == "br" and brotli is None):
            return _make_encoder(name)
    return None


def _make_encoder(name: str) -> Encoder:
    match name:
        case "zstd":
            frame = zstd.ZstdCompressor(level=1)
            return _Flushing(
                name, lambda piece: bytes(frame.compress(piece, zstd.ZstdCompressor.FLUSH_BLOCK)), frame.flush
            )
        case "br":
            stream = brotli.Compressor(quality=1)
            return _Flushing(name, lambda piece: bytes(stream.process(piece) + stream.flush()), stream.finish)
        case "lz4":
            return _Lz4Encoder()
    deflate = zlib.compressobj(1, wbits=_GZIP if name == "gzip" else _ZLIB)
    return _Flushing(name, lambda piece: deflate.compress(piece) + deflate.flush(zlib.Z_SYNC_FLUSH), deflate.flush)


class _Lz4Encoder:
    """One LZ4 frame for the whole response: clickhouse-connect reads no second one."""

    name = "lz4"

    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        self._begun = False

    def encode(self, piece: bytes) -> bytes:
        begin = b"" if self._begun else self._frame.begin()
        self._begun = True
        return bytes(begin + self._frame.compress(piece))

    def finish(self) -> bytes:
        begin = b"" if self._begun else self._frame.begin()
        return bytes(begin + self._frame.flush())
