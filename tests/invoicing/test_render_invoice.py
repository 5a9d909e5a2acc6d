"""Rendering is done once per invoice, and again only if the file is gone or not what was recorded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import BrokenInvariantError, InvalidInputError
from invoicing.adapters.folder import FolderDocuments
from invoicing.ports import Document, StoredSnapshot
from invoicing.render_invoice import render_invoice
from rating.domain.digest import digest_of
from tests.invoicing.memory import CountingRenderer, MemoryDocumentRegister
from tests.invoicing.scene import at

SNAPSHOT = {"invoice": {"number": "MB-2026-000001"}}
STORED = StoredSnapshot("inv_1", "acme", "MB-2026-000001", SNAPSHOT, digest_of(SNAPSHOT))


class Shop:
    def __init__(self, folder: Path, stored: StoredSnapshot = STORED) -> None:
        self.folder = folder
        self.register, self.render = MemoryDocumentRegister(stored), CountingRenderer()

    async def deliver(self, invoice_id: str = "inv_1") -> Document:
        return await render_invoice(
            invoice_id,
            register=self.register,
            documents=FolderDocuments(self.folder),
            render=self.render,
            clock=ManualClock(at("2026-11-03")),
        )


async def test_a_document_is_written_recorded_and_not_made_twice(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "documents")
    document = await shop.deliver()
    file = tmp_path / "documents" / "acme" / "MB-2026-000001.pdf"
    assert document.location == str(file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == document.sha256
    assert document.size_bytes == len(file.read_bytes())
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing half-written is left"
    assert await shop.deliver() == document
    assert shop.render.calls == 1


@pytest.mark.parametrize("harm", ["gone", "changed"])
async def test_a_document_that_is_gone_or_changed_is_made_again(tmp_path: Path, harm: str) -> None:
    shop = Shop(tmp_path)
    document = await shop.deliver()
    file = Path(document.location)
    file.unlink() if harm == "gone" else file.write_bytes(b"tampered")
    assert await shop.deliver() == document
    assert shop.render.calls == 2
    assert file.read_bytes() == b"%PDF of MB-2026-000001"


async def test_an_unknown_invoice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await Shop(tmp_path).deliver("inv_2")
    assert refused.value.faults[0].code == "unknown_invoice"


async def test_a_snapshot_that_was_changed_stops_the_work(tmp_path: Path) -> None:
    with pytest.raises(BrokenInvariantError):
        await Shop(tmp_path, replace(STORED, sha256="0" * 64)).deliver()
    assert list(tmp_path.iterdir()) == []
