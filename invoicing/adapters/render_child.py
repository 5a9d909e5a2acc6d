"""The process that renders. It begins with an empty environment, loads what it needs, shuts itself in and then answers.

Requests come on standard input, answers go to standard output, each a length of four bytes and MessagePack. Whatever
libraries print goes to standard error. Started by `render_workers`; ends when its input does.
"""

from __future__ import annotations

import gc
import os
import struct
import sys
from importlib import resources, util
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from invoicing.adapters.sandbox import Confinement, confine, limit_resources

LENGTH = struct.Struct(">I")
_ERROR_MAX = 500


class Request(msgspec.Struct, frozen=True):
    """A snapshot to render; `mark` as in `invoicing.domain.document.Mark`."""

    snapshot: dict[str, Any]
    mark: str


class Answer(msgspec.Struct, frozen=True):
    """The files, or an error. `refusal` says why there is no e-invoice, `glyphs_missing` what could not be drawn."""

    pdf: bytes = b""
    cii: bytes = b""
    ubl: bytes = b""
    refusal: str = ""
    glyphs_missing: str = ""
    error: str = ""


class Ready(msgspec.Struct, frozen=True):
    """The child is shut in: which fences stand."""

    files: bool
    network: bool


def main(memory_bytes: int) -> None:
    """Answer requests until there are no more."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _warm_up()
    # Looking through everything that is loaded, again and again, costs a fifth of a document. What is there now stays;
    # what a document leaves behind is swept up after it.
    gc.collect()
    gc.freeze()
    gc.disable()
    limit_resources(memory_bytes)
    stands = confine(_readable())
    _send(answers, Ready(stands.files, stands.network))
    while (raw := _receive(requests)) is not None:
        _send(answers, answer(raw))
        gc.collect()


def answer(raw: bytes) -> Answer:
    """Render one request; an error is an answer too."""
    from invoicing.render_document import render_document

    try:
        request = msgspec.msgpack.decode(raw, type=Request)
        rendered = render_document(request.snapshot, request.mark)  # type: ignore[arg-type]
    except Exception as error:  # whatever it is, the worker shall hear of it and go on
        return Answer(error=f"{type(error).__name__}: {error}"[:_ERROR_MAX])
    files = rendered.e_invoice
    return Answer(
        rendered.pdf,
        files.cii if files else b"",
        files.ubl if files else b"",
        rendered.refusal,
        rendered.glyphs_missing,
    )


def _warm_up() -> None:
    """Load every library, font and schema while files can still be read, and languages with their time zones."""
    from invoicing.document_words import load_words
    from invoicing.domain.document import LANGUAGES
    from invoicing.render_document import render_document

    for language in LANGUAGES:
        load_words(language)
    render_document(msgspec.json.decode((resources.files("invoicing") / "data" / "warm_up.json").read_bytes()))


def _readable() -> list[Path]:
    """Return what may be read: the interpreter with its libraries, time zones, and the packages that render."""
    from invoicing.adapters.pdf import extra_fonts

    folders = [
        Path(sys.prefix),
        Path(sys.base_prefix),
        *map(Path, ("/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo")),
    ]
    for package in ("invoicing", "core", "rating", "weasyprint", "babel", "tzdata"):
        found = util.find_spec(package)
        folders += [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    # The fonts as the library unpacked them lie in the folder for temporary files, which is this process's own.
    folders += [Path(os.environ["TMPDIR"])] if "TMPDIR" in os.environ else []
    return folders + extra_fonts()


def _receive(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    return stream.read(length)


def _send(stream: BinaryIO, message: Answer | Ready | Confinement) -> None:
    raw = msgspec.msgpack.encode(message)
    stream.write(LENGTH.pack(len(raw)) + raw)
    stream.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
