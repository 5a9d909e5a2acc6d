"""The manifest: which runs make a store, up to which journal offset, with the caller's state. Owns its file's form.

A checkpoint holds as soon as its manifest has its name: it is written beside, then renamed. It ends with a digest of
itself, so a torn or foreign file is told from a whole one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import msgspec

from streams.adapters.identity_store.sorted_run import RunMeta

FORMAT = 1
NAME = "manifest"
_DIGEST_BYTES = 16


class Manifest(msgspec.Struct, array_like=True, frozen=True):
    """A checkpoint. `entry_digest` is of the record at `journal_offset`; days before `first_day` are forgotten."""

    format: int
    journal_offset: int
    entry_digest: bytes
    first_day: int
    next_number: int
    runs: list[RunMeta]
    state: bytes


class ManifestError(Exception):
    """The manifest cannot be used; the message says why."""


def digest_of(raw: bytes) -> bytes:
    """Return 16 bytes that stand for `raw`."""
    return blake2b(raw, digest_size=_DIGEST_BYTES).digest()


def write_manifest(folder: Path, manifest: Manifest, sync: Callable[[int], None]) -> None:
    """Put the manifest in the place of the one before, at once or not at all; raises `OSError`."""
    raw = msgspec.msgpack.encode(manifest)
    beside = folder / f"{NAME}.new"
    with beside.open("wb") as file:
        file.write(raw + digest_of(raw))
        file.flush()
        sync(file.fileno())
    beside.replace(folder / NAME)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest, None if there is none; raises `ManifestError` if it is not whole, `OSError`."""
    try:
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    body, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if digest_of(body) != digest:
        raise ManifestError("the manifest is torn")
    try:
        format_ = msgspec.msgpack.decode(body, type=list)[0]
        if format_ != FORMAT:
            raise ManifestError(f"the manifest has format {format_}, not {FORMAT}")
        return msgspec.msgpack.decode(body, type=Manifest)
    except (msgspec.MsgspecError, IndexError) as error:
        raise ManifestError(f"the manifest cannot be read: {error}") from None
