"""Rendering is done once per document, and again only if a file is gone or not what was recorded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import BrokenInvariantError, InvalidInputError
from invoicing.adapters.folder import FolderDocuments
from invoicing.domain.document import Mark
from invoicing.ports import Document, StoredSnapshot
from invoicing.render_invoice import Made, Outcome, render_invoice
from rating.domain.digest import digest_of
from tests.invoicing.documents.memory import CountingRenderer, MemoryDocuments, void
from tests.invoicing.scene import at

pytestmark = pytest.mark.slow

SNAPSHOT = {"invoice": {"number": "MB-2026-000001"}, "bill_to": {"email": "ap@acme.example"}}
STORED = StoredSnapshot("inv_1", "acme", "MB-2026-000001", SNAPSHOT, digest_of(SNAPSHOT))


class Shop:
    def __init__(self, folder: Path, stored: StoredSnapshot = STORED) -> None:
        self.folder = folder
        self.register, self.render = MemoryDocuments(stored), CountingRenderer()

    async def deliver(self, invoice_id: str = "inv_1", *, mark: Mark = "", by_mail: bool = False) -> Document:
        return (await self.make(invoice_id, mark=mark, by_mail=by_mail))[0].document

    async def make(
        self, invoice_id: str = "inv_1", *, mark: Mark = "", by_mail: bool = False, replace: bool = False
    ) -> list[Made]:
        return await render_invoice(
            invoice_id,
            register=self.register,
            documents=FolderDocuments(self.folder),
            render=self.render,
            clock=ManualClock(at("2026-11-03")),
            mark=mark,
            by_mail=by_mail,
            replace=replace,
        )


async def test_documents_are_written_recorded_and_not_made_twice(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "documents")
    document = await shop.deliver()
    file = (tmp_path / "documents" / "acme" / "MB-2026-000001.pdf").resolve()
    assert document.location == str(file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == document.sha256
    assert document.size_bytes == len(file.read_bytes())
    names = [f"MB-2026-000001{ending}" for ending in (".cii.xml", ".pdf", ".ubl.xml")]
    assert sorted(path.name for path in file.parent.iterdir()) == names, "nothing half-written is left"
    assert await shop.deliver() == document
    assert shop.render.calls == 1


@pytest.mark.parametrize("ending", [".pdf", ".ubl.xml", ".cii.xml"])
@pytest.mark.parametrize("harm", ["gone", "changed"])
async def test_a_document_that_is_gone_or_changed_is_made_again(tmp_path: Path, harm: str, ending: str) -> None:
    shop = Shop(tmp_path)
    document = await shop.deliver()
    file = tmp_path / "acme" / f"MB-2026-000001{ending}"
    before = file.read_bytes()
    file.unlink() if harm == "gone" else file.write_bytes(b"tampered")
    assert await shop.deliver() == document
    assert shop.render.calls == 2
    assert file.read_bytes() == before


def outcomes(made: list[Made]) -> dict[str, Outcome]:
    return {one.document.media_type.rpartition("=")[2]: one.outcome for one in made}


async def test_it_says_of_each_file_what_became_of_it(tmp_path: Path) -> None:
    shop, (all_kept, pdf) = Shop(tmp_path), (Outcome.KEPT, "application/pdf")
    assert outcomes(await shop.make()) == {pdf: Outcome.MADE, "cii": Outcome.MADE, "ubl": Outcome.MADE}
    assert outcomes(await shop.make()) == {pdf: all_kept, "cii": all_kept, "ubl": all_kept}
    (tmp_path / "acme" / "MB-2026-000001.ubl.xml").unlink()
    assert outcomes(await shop.make()) == {pdf: all_kept, "cii": all_kept, "ubl": Outcome.SAME_BYTES}


@pytest.mark.parametrize("harm", ["gone", "changed"])
async def test_other_bytes_take_the_place_of_recorded_ones_only_if_somebody_says_so(tmp_path: Path, harm: str) -> None:
    shop = Shop(tmp_path)
    before = await shop.make()
    shop.render.edition = " of another release"
    assert await shop.make() == [replace(one, outcome=Outcome.KEPT) for one in before], "what is there stays"
    file = tmp_path / "acme" / "MB-2026-000001.pdf"
    file.unlink() if harm == "gone" else file.write_bytes(b"tampered")
    with pytest.raises(InvalidInputError) as refused:
        await shop.make(by_mail=True)
    assert refused.value.faults[0].code == "document_differs"
    assert before[0].document.sha256 in refused.value.faults[0].reason
    assert shop.register.recorded["inv_1"]["application/pdf"] == before[0].document
    assert (file.exists(), shop.register.rows) == (harm == "changed", {}), "nothing is written"
    made = await shop.make(replace=True)
    assert made[0].outcome is Outcome.REPLACED
    assert shop.register.recorded["inv_1"]["application/pdf"] == made[0].document
    assert shop.register.replaced == [before[0].document], "what was recorded is kept beside"
    assert made[0].document.location != before[0].document.location
    again = Path(made[0].document.location)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == made[0].document.sha256
    again.unlink()
    made_again = await shop.make()
    assert (made_again[0].document, made_again[0].outcome) == (made[0].document, Outcome.SAME_BYTES)


async def test_what_is_there_is_made_anew_where_somebody_says_so_and_the_old_file_stays(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    before = await shop.make()
    assert {one.outcome for one in await shop.make(replace=True)} == {Outcome.SAME_BYTES}
    shop.render.edition = " with the fonts that were missing"
    made = await shop.make(replace=True)
    assert outcomes(made) == {
        "application/pdf": Outcome.REPLACED, "cii": Outcome.SAME_BYTES, "ubl": Outcome.SAME_BYTES,
    }  # fmt: skip
    for one in (before[0].document, made[0].document):
        assert hashlib.sha256(Path(one.location).read_bytes()).hexdigest() == one.sha256, "both are there"


async def test_an_e_invoice_that_cannot_be_made_any_more_is_told(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    await shop.make()
    (tmp_path / "acme" / "MB-2026-000001.cii.xml").unlink()
    shop.render.refusal = "mixed_categories"
    with pytest.raises(InvalidInputError) as refused:
        await shop.make()
    assert (refused.value.faults[0].code, "none any more" in refused.value.faults[0].reason) == (
        "document_differs",
        True,
    )


async def test_an_unknown_invoice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await Shop(tmp_path).deliver("inv_2")
    assert refused.value.faults[0].code == "unknown_invoice"


async def test_a_broken_template_is_refused_with_its_reason_and_leaves_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.render.failure = "UndefinedError: 'seller' is undefined"
    with pytest.raises(InvalidInputError) as refused:
        await shop.deliver(by_mail=True)
    assert (refused.value.faults[0].code, "seller" in refused.value.faults[0].reason) == ("rendering_failed", True)
    assert (list(tmp_path.iterdir()), shop.register.recorded, shop.register.rows) == ([], {}, {})


async def test_a_snapshot_that_was_changed_stops_the_work(tmp_path: Path) -> None:
    with pytest.raises(BrokenInvariantError):
        await Shop(tmp_path, replace(STORED, sha256="0" * 64)).deliver()
    assert list(tmp_path.iterdir()) == []


async def test_the_buyer_is_written_to_once_and_only_where_that_is_wanted(tmp_path: Path) -> None:
    quiet = Shop(tmp_path / "quiet")
    await quiet.deliver()
    assert quiet.register.rows == {}
    shop = Shop(tmp_path / "mail")
    for _ in range(2):
        await shop.deliver(by_mail=True)
        (tmp_path / "mail" / "acme" / "MB-2026-000001.pdf").unlink()
    assert list(shop.register.rows) == [("inv_1", "ap@acme.example")]


async def test_a_void_invoice_gets_a_copy_that_says_so_beside_the_original_and_no_mail(tmp_path: Path) -> None:
    shop = Shop(tmp_path, void(STORED))
    original = await shop.deliver(by_mail=True)
    copy = await shop.deliver(mark="void", by_mail=True)
    assert copy.media_type == "application/pdf;mark=void"
    assert Path(copy.location).read_bytes() == b"%PDF void of MB-2026-000001"
    assert Path(original.location).read_bytes() == b"%PDF of MB-2026-000001"
    assert shop.register.rows == {}
    assert await shop.deliver(mark="void") == copy
    assert shop.render.calls == 2
