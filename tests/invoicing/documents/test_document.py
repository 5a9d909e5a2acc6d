"""The PDF: what it says in every tier and language, that it reaches nothing, and that it is the same every time."""

from __future__ import annotations

import base64
import copy
import functools
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from PIL import Image
from pypdf import PdfReader

from core.errors import BrokenInvariantError
from invoicing.adapters.pdf import _bundled_fetcher, render_pdf
from invoicing.document_html import document_html, templates_folder
from invoicing.document_words import load_words
from invoicing.domain.document import LANGUAGES, open_snapshot
from invoicing.render_document import render_document
from rating.domain.digest import canonical_json
from tests.invoicing.documents.samples import (
    ARABIC,
    EMOJI,
    HEBREW,
    LONG,
    TIERS,
    line,
    many_lines,
    snapshot,
    usual_lines,
)
from tests.invoicing.documents.validators import validate_pdf
from tests.invoicing.scene import Scene

pytestmark = pytest.mark.slow


def pages_of(pdf: bytes) -> list[str]:
    return [page.extract_text().replace("\xa0", " ") for page in PdfReader(io.BytesIO(pdf)).pages]


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("&amp;", "&")


@functools.cache
def usual_pdf() -> bytes:
    return render_document(snapshot()).pdf


async def test_an_invoice_of_the_books_says_who_when_what_and_how_much() -> None:
    scene = Scene()
    scene.on("lite")
    scene.used("agent_executions", 120_000)
    scene.used("llm_input_tokens", 1_234_567, "2026-10-03T10:00", model="gpt4")
    scene.used("cpu", "100.5", "2026-10-04T10:00")
    # Through JSON, as PostgreSQL gives it back.
    stored: dict[str, Any] = json.loads(canonical_json((await scene.bill_one()).snapshot))
    first, annex = pages_of(render_document(stored).pdf)
    for text in (
        "Meterbook Example Inc.",
        "MB-2026-000001",
        "Acme",
        "November 3, 2026",
        "Germany",
        "Oct 1 – 31, 2026",
        "1,234,567",
        "/ 1,000 tokens",
        "$37.04",
        "$151.07",  # 99 + 20,000 × 0.0005 + 1,234.567 × 0.03 (37.04) + 5.03
        "Page 1 of 2",
    ):
        assert text in first, text
    assert "Usage behind this invoice" in annex
    assert "100.5" in annex
    assert stored["annex"]["digest"] in annex.replace("\n", "")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_says_its_own_in_every_language(tier: str, language: str) -> None:
    words = load_words(language)
    own = text_of(document_html(snapshot(tier, language)))
    base = text_of(document_html(snapshot("another-company", language)))
    key = "zero_pay" if tier == "zero_pay_per_execution" else tier
    for text in (words.text(f"{key}_intro"), words.text(f"{key}_notes")):
        assert text in own
        assert text not in base
    for said in ("invoice", "amount_due", "bank_transfer", "usage_title", "group_Usage"):
        assert words.text(said) in own, said
    assert "<body class" not in own


def test_there_are_five_tiers_that_look_different() -> None:
    classes = {re.search(r'<body class="([^"]+)"', document_html(snapshot(tier))).group(1) for tier in TIERS}  # type: ignore[union-attr]
    assert classes == {f"tier-{tier}" for tier in TIERS if tier != "zero_pay_per_execution"}
    assert {path.stem for path in (templates_folder() / "tiers").iterdir()} == set(TIERS)


def test_the_same_snapshot_gives_the_same_bytes() -> None:
    assert render_document(copy.deepcopy(snapshot())).pdf == usual_pdf()
    assert render_document(snapshot(name="Someone else")).pdf != usual_pdf()


def test_the_pdf_is_an_archive_file_with_its_fonts_and_the_e_invoice_inside() -> None:
    reader = PdfReader(io.BytesIO(usual_pdf()))
    metadata = reader.trailer["/Root"]["/Metadata"].get_data()  # type: ignore[index]
    assert b'pdfaid:part="3"' in metadata
    assert b"<fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>" in metadata
    assert reader.metadata is not None
    assert reader.metadata.title == "Invoice MB-2026-000042 · Meterbook Example GmbH"
    rendered = render_document(snapshot())
    assert rendered.e_invoice is not None
    assert reader.attachments["factur-x.xml"] == [rendered.e_invoice.cii]
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():  # type: ignore[index]
            below = font.get_object()["/DescendantFonts"][0].get_object()
            assert "/FontFile2" in below["/FontDescriptor"].get_object(), "a font that is not embedded"


@pytest.mark.integration
def test_verapdf_finds_nothing_wrong_with_the_hardest_document(tmp_path: Path) -> None:
    name = f"{ARABIC} · {HEBREW} · {EMOJI} · Ελληνική Тест ąę · 株式会社 한국 ไทย"
    picture = io.BytesIO()
    Image.new("RGBA", (40, 10), (185, 28, 28, 128)).save(picture, "PNG")
    seller = {"logo": f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"}
    hard = render_document(
        snapshot("airgapped", "de", name=name, groups=many_lines(40), credits_applied="20.00", seller=seller)
    )
    file = tmp_path / "invoice.pdf"
    file.write_bytes(hard.pdf)
    report = validate_pdf(file)
    assert report.find("pdf/summary").get("status") == "valid"  # type: ignore[union-attr]
    assert report.find("summary").get("status") == "valid"  # type: ignore[union-attr]


NASTY = '<script>alert(1)</script><img src="file:///etc/passwd"> {{ 7 * 7 }} ąęłİ Ünï “x” & Co.'


def test_names_are_data_never_markup() -> None:
    html = document_html(snapshot(name=NASTY, bill_to={"address": [NASTY]}, groups=[("Usage", [line(NASTY, "1.00")])]))
    assert "<script>" not in html
    assert "file:///" not in html.replace("&#34;file:///", "")
    (first, *_) = pages_of(render_pdf(snapshot(name=NASTY)).content)
    text = first.replace("\n", " ")
    assert "{{ 7 * 7 }}" in text
    assert "ąęłİ Ünï “x” & Co." in text


def test_two_hundred_lines_and_long_names_stay_on_the_page() -> None:
    pages = pages_of(render_pdf(snapshot("shared", "de", name=LONG, groups=many_lines(200))).content)
    assert sum(page.count("Data transfer out") for page in pages) == 198
    assert f"Seite {len(pages)} von {len(pages)}" in pages[-1]
    assert all("LEISTUNG" in page for page in pages[:-1] if "Data transfer out" in page), "the table's head is repeated"
    assert LONG.replace(" ", "") in re.sub(r"\s", "", pages[0])


@pytest.mark.parametrize(("name", "direction"), [(ARABIC, "rtl"), (HEBREW, "rtl"), (EMOJI, "ltr")])
def test_names_from_the_right_and_with_emoji_have_their_glyphs(name: str, direction: str) -> None:
    shown = snapshot(name=name)
    assert f'<p class="name" dir="{direction}">' in document_html(shown)
    reader = PdfReader(io.BytesIO(render_pdf(shown).content))
    fonts = {str(font.get_object()["/BaseFont"]) for font in reader.pages[0]["/Resources"]["/Font"].values()}  # type: ignore[index]
    wanted = {ARABIC: "Arabic", HEBREW: "Hebrew", EMOJI: "Emoji"}[name]
    assert any(wanted in font for font in fonts), fonts


def test_a_credit_note_is_called_so_names_what_it_corrects_and_is_positive() -> None:
    first = {"number": "MB-2026-000001", "issued_at": "2026-10-03T00:00:00Z"}
    corrects = [first, {"number": "MB-2026-000009", "issued_at": None}]
    text = text_of(document_html(snapshot(language="de", kind="credit_note", corrects=corrects)))
    for said in ("Rechnungskorrektur", "MB-CN-2026-000007", "MB-2026-000001 vom 3. Oktober 2026", "MB-2026-000009"):
        assert said in text
    assert "179,77 €" in text.replace("\xa0", " ")
    assert "-1" not in text.split("Leistung")[1].split("Zahlung")[0]
    assert "IBAN" not in text, "nobody is asked to pay a credit note"
    assert "Fällig" not in text


@pytest.mark.parametrize(("mark", "said"), [("void", "ANULADA"), ("draft", "BORRADOR")])
def test_a_marked_document_says_so_and_asks_for_no_money(mark: Any, said: str) -> None:
    shown = snapshot("shared", "es", country="ES")
    rendered = render_document(shown, mark)
    assert rendered.e_invoice is None
    assert all(said in page for page in pages_of(rendered.pdf)), "every page is stamped"
    text = text_of(document_html(shown, mark))
    assert load_words("es").text(f"{mark}_notice") in text
    assert "IBAN" not in text


def test_the_tax_table_has_a_row_per_rate_and_says_why_nothing_is_charged() -> None:
    two = [
        usual_lines()[0],
        ("Usage", [line("Books", "50.00", rate="7"), line("Nothing", "10.00", category="E", rate="0")]),
    ]
    text = text_of(document_html(snapshot(language="de", groups=two))).replace("\xa0", " ")
    for row in ("USt. 19 % auf 99,00 € 18,81 €", "USt. 7 % auf 50,00 € 3,50 €", "Steuerfrei auf 10,00 € 0,00 €"):
        assert row in text
    abroad = snapshot(
        language="de", country="FR", groups=usual_lines("AE", "0"), bill_to={"vat_number": "FR12345678901"}
    )
    assert "Steuerschuldnerschaft des Leistungsempfängers" in text_of(document_html(abroad))
    sales = snapshot(country="US", currency="USD", place="US-CA", rate="7.25", tax={"kind": "sales_tax"})
    assert "Sales tax US-CA 7.25% on $151.07" in text_of(document_html(sales))
    own = snapshot(groups=usual_lines("O", "0"), tax={"note_code": "seller_charges_none", "note": "We charge none."})
    assert "We charge none." in text_of(document_html(own))


def test_only_euros_to_an_iban_get_a_code_that_can_be_scanned() -> None:
    assert 'alt="EPC QR"' in document_html(snapshot())
    assert 'alt="EPC QR"' not in document_html(snapshot(currency="USD", country="US"))
    assert 'alt="EPC QR"' not in document_html(snapshot(credits_applied="179.77"))


def test_a_snapshot_of_the_older_format_is_shown_without_tax() -> None:
    older = snapshot("lite", "en")
    for name in ("kind", "language", "corrects", "taxes", "transfer"):
        del older[name]
    older |= {"format": 2, "locale": "en_US", "tax": "0.00", "total": "151.07", "amount_due": "151.07"}
    older["invoice"]["corrects"] = ["MB-2026-000003"]
    for each in (one for group in older["groups"] for one in group["lines"]):
        del each["tax_category"], each["tax_rate"], each["net"]
    del older["seller"]["vat_number"]
    text = text_of(document_html(older))
    assert "With corrections to MB-2026-000003" in text
    assert "Total EUR €151.07" in text.replace("\xa0", " ")
    rendered = render_document(older)
    assert rendered.e_invoice is not None
    with pytest.raises(BrokenInvariantError):
        open_snapshot({**older, "format": 4})


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "https://example.com/x.css",
        "ftp://example.com/x",
        "asset:fonts/../../seller.yaml",
        "asset:fonts/LICENSE.txt",
        "asset:///etc/passwd",
        "relative.css",
    ],
)
def test_a_document_can_fetch_nothing_but_bundled_fonts(url: str) -> None:
    with pytest.raises(ValueError, match="may not fetch"):
        _bundled_fetcher().fetch(url)


def test_bundled_fonts_and_inline_data_are_fetched() -> None:
    fetcher = _bundled_fetcher()
    assert fetcher.fetch("asset:fonts/inter-latin-400-normal.ttf").read(4) == b"\x00\x01\x00\x00"
    assert fetcher.fetch("data:text/plain,hello").read() == b"hello"


def test_every_font_has_its_licence_beside_it() -> None:
    folder = templates_folder() / "fonts"
    licence = (folder / "LICENSE.txt").read_text()
    families = {re.match(r"(inter|noto-emoji|noto-sans-[a-z]+)", path.name).group(1) for path in folder.glob("*.ttf")}  # type: ignore[union-attr]
    for family in families:
        assert f"({family}-" in licence, family
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence


def test_a_snapshot_that_lacks_something_is_an_error_not_a_blank() -> None:
    lacking = snapshot()
    del lacking["seller"]["tax_id"]
    with pytest.raises(UndefinedError):
        document_html(lacking)
