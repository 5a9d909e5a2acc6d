"""Unpacks compressed request bodies. Owns that nothing small becomes large in here.

The unpacked size is bounded by what the endpoint takes anyway, and so is the ratio: a body that grows a
hundredfold and more is no usage, so reading on would only cost time. At no time more than the bound is in memory.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any, Protocol

from core.usage_event import Rejection

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = frozenset({"gzip", "x-gzip", "zstd"})
# Hundreds of alike events shrink to a hundredth at most; zeros shrink to a thousandth.
RATIO_MAX = 200
# Below this a high ratio does no harm, and very small bodies are mostly headers of their format.
RATIO_FREE_BYTES = 262_144
_MEMBERS_MAX = 64
_STEP = 262_144
# The window that RFC 9659 asks of every zstd decoder for HTTP: 8 MB.
_ZSTD_WINDOW_LOG = 23


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: Any, max_length: int, /) -> bytes: ...


def unpack_body(raw: bytes, encoding: str, max_bytes: int) -> bytes | Rejection:
    """Return the body without its encoding (one of `ENCODINGS`), at most `max_bytes` of it.

    Codes: `too_large`, `invalid_encoding` (not that format, cut off, or followed by something else).
    """
    allowed = min(max_bytes, max(RATIO_FREE_BYTES, RATIO_MAX * len(raw)))
    parts: list[bytes] = []
    size = 0
    rest = raw
    try:
        for _ in range(_MEMBERS_MAX):
            unpacker = _create(encoding)
            while not unpacker.eof:
                part = unpacker.decompress(rest, min(_STEP, allowed - size + 1))
                rest = getattr(unpacker, "unconsumed_tail", b"")
                size += len(part)
                parts.append(part)
                if size > allowed:
                    return Rejection("too_large", f"the body unpacks to more than the {allowed} bytes allowed")
                if not part and not rest and not unpacker.eof:
                    return Rejection("invalid_encoding", f"the {encoding} body is cut off")
            rest = unpacker.unused_data
            if not rest:
                return b"".join(parts)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        return Rejection("invalid_encoding", f"not a {encoding} body: {str(error)[:120]}")
    return Rejection("invalid_encoding", f"the {encoding} body has more than {_MEMBERS_MAX} parts")


def _create(encoding: str) -> _Decompressor:
    if encoding == "zstd":
        options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
        return zstd.ZstdDecompressor(options=options)
    return zlib.decompressobj(wbits=31)
