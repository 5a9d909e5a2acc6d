"""ClickHouse's errors. Owns their codes, how a message carries them, and the HTTP status that each has."""

from __future__ import annotations

import re

# Codes that the front itself raises; all others come out of the engine's messages.
CANNOT_READ_ALL_DATA = 33
BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
READONLY = 164
TOO_MANY_SIMULTANEOUS_QUERIES = 202
ZLIB_INFLATE_FAILED = 354
INTO_OUTFILE_NOT_ALLOWED = 358
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
INVALID_SESSION_TIMEOUT = 374
BROTLI_READ_FAILED = 448
AUTHENTICATION_FAILED = 516
ZSTD_DECODER_FAILED = 561
LZ4_DECODER_FAILED = 618
UNSUPPORTED_MEDIA_TYPE = 779
UNKNOWN_EXCEPTION = 1002

_NAMES = {
    CANNOT_READ_ALL_DATA: "CANNOT_READ_ALL_DATA",
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    SYNTAX_ERROR: "SYNTAX_ERROR",
    READONLY: "READONLY",
    TOO_MANY_SIMULTANEOUS_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    ZLIB_INFLATE_FAILED: "ZLIB_INFLATE_FAILED",
    INTO_OUTFILE_NOT_ALLOWED: "INTO_OUTFILE_NOT_ALLOWED",
    SESSION_NOT_FOUND: "SESSION_NOT_FOUND",
    SESSION_IS_LOCKED: "SESSION_IS_LOCKED",
    INVALID_SESSION_TIMEOUT: "INVALID_SESSION_TIMEOUT",
    BROTLI_READ_FAILED: "BROTLI_READ_FAILED",
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    ZSTD_DECODER_FAILED: "ZSTD_DECODER_FAILED",
    LZ4_DECODER_FAILED: "LZ4_DECODER_FAILED",
    UNSUPPORTED_MEDIA_TYPE: "UNSUPPORTED_MEDIA_TYPE",
    UNKNOWN_EXCEPTION: "UNKNOWN_EXCEPTION",
}

# HTTP statuses as ClickHouse's own HTTP server gives them; every code that is not here is 500.
_STATUS_OF_CODES: dict[int, tuple[int, ...]] = {
    400: (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676),
    401: (194,),
    403: (192, 193, 497, 512, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    411: (381,),
    413: (229,),
    415: (779,),
    501: (48,),
    503: (76, 209, 439),
}
_STATUS = {code: status for status, codes in _STATUS_OF_CODES.items() for code in codes}
_MESSAGE = re.compile(r"Code: (\d+)\. ", re.DOTALL)
_VERSION = re.compile(r"\(version [^()]*(?:\([^()]*\))?\)\s*$")


class ClickHouseError(Exception):
    """A statement's failure: `code` as ClickHouse numbers it, `text` as its server would write it."""

    def __init__(self, code: int, message: str, *, is_whole: bool = False) -> None:
        name = _NAMES.get(code, "UNKNOWN_EXCEPTION")
        self.code = code
        self.text = message if is_whole else f"Code: {code}. DB::Exception: {message}. ({name})"
        super().__init__(self.text)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _STATUS.get(self.code, 500)

    def body(self, version: str) -> str:
        """The response's body."""
        return self.text if _VERSION.search(self.text) else f"{self.text} (version {version})"


def from_engine(error: Exception) -> ClickHouseError:
    """Turn what the engine's Python binding raised into ClickHouse's error; its wrappers' words are cut off."""
    text = str(error).strip()
    match = _MESSAGE.search(text)
    if match is None:
        return ClickHouseError(UNKNOWN_EXCEPTION, text or type(error).__name__)
    return ClickHouseError(int(match.group(1)), text[match.start() :], is_whole=True)
