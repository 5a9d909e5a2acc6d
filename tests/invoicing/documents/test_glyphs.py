"""Names in any script can be read, or somebody hears that they cannot."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pypdf import PdfReader

from core.clock import ManualClock
from invoicing.adapters.folder import FolderDocuments
from invoicing.ports import StoredSnapshot
from invoicing.render_document import Rendered, render_document
from invoicing.render_invoice import render_invoice
from rating.domain.digest import digest_of
from tests.invoicing.documents.memory import CountingRenderer, MemoryDocuments
from tests.invoicing.documents.samples import ARABIC, EMOJI, HEBREW, snapshot
from tests.invoicing.scene import at

pytestmark = pytest.mark.slow

CHINESE, JAPANESE, KOREAN = "北京云计算科技有限公司", "株式会社クラウド計算", "주식회사 클라우드"
THAI, TIBETAN = "บริษัท คลาวด์ไทย จำกัด", "བོད"
# Written without an extra, as whoever did not install it does.
_WITHOUT_EXTRA = """
import hashlib, sys
from invoicing.adapters import pdf
pdf._CJK_PACKAGE = "not_installed"
from invoicing.render_document import render_document
from tests.invoicing.documents.samples import snapshot
print(hashlib.sha256(render_document(snapshot()).pdf).hexdigest())
print(ascii(render_document(snapshot(name=sys.argv[1])).glyphs_missing))
"""


@pytest.mark.parametrize(
    ("name", "country"),
    [(CHINESE, "CN"), (CHINESE, "TW"), (JAPANESE, "JP"), (KOREAN, "KR"), (THAI, "TH"), (ARABIC, "AE"), (HEBREW, "IL"),
     (EMOJI, "DE"), ("Ünï Œuvre Ελληνικά Кириллица Tiếng Việt", "DE"), (f"{JAPANESE} {KOREAN} {THAI}", "US")],
)  # fmt: skip
def test_a_name_is_printed_and_can_be_copied(name: str, country: str) -> None:
    rendered = render_document(snapshot(name=name, country=country))
    assert rendered.glyphs_missing == ""
    if name not in (ARABIC, HEBREW, EMOJI):
        text = PdfReader(io.BytesIO(rendered.pdf)).pages[0].extract_text()
        assert name.split()[0] in text


def test_what_no_font_has_is_told_and_control_characters_are_left_out() -> None:
    assert render_document(snapshot(name=f"Acme {TIBETAN}")).glyphs_missing == "".join(sorted(TIBETAN))
    assert render_document(snapshot(name="A\x00c\x0bm\ue000e\ufffe\x85\u2028\u2029")).glyphs_missing == "\ue000"


def test_without_the_extra_the_same_bytes_and_chinese_is_told_as_missing() -> None:
    with_extra = hashlib.sha256(render_document(snapshot()).pdf).hexdigest()
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRA, CHINESE], capture_output=True, text=True, check=True, timeout=120
    )
    digest, missing = ran.stdout.split()
    assert digest == with_extra, "fonts that are not used change nothing"
    assert missing == ascii("".join(sorted(set(CHINESE))))


async def test_a_person_hears_of_it_once_for_each_document_that_is_made(tmp_path: Path) -> None:
    class Unreadable(CountingRenderer):
        async def __call__(self, *asked: object) -> Rendered:
            self.calls += 1
            return Rendered(b"%PDF", None, glyphs_missing=TIBETAN)

    shown = {"invoice": {"number": "MB-2026-000001"}, "bill_to": {"email": ""}}
    register = MemoryDocuments(StoredSnapshot("inv_1", "acme", "MB-2026-000001", shown, digest_of(shown)))
    before = REGISTRY.get_sample_value("meterbook_documents_glyphs_missing_total") or 0
    for _ in range(2):
        await render_invoice(
            "inv_1",
            register=register,
            documents=FolderDocuments(tmp_path),
            render=Unreadable(),
            clock=ManualClock(at("2026-11-03")),
        )
    assert REGISTRY.get_sample_value("meterbook_documents_glyphs_missing_total") == before + 1
