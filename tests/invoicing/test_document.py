"""The PDF: what it says, that it reaches nothing, and that the same snapshot gives the same bytes."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest
from jinja2 import UndefinedError
from pypdf import PdfReader

from invoicing.adapters.pdf import PdfWorkers, _bundled_fetcher, render_pdf
from invoicing.document_html import document_html, templates_folder
from rating.domain.digest import canonical_json
from tests.invoicing.scene import Scene
from tests.rating.plans import TIERS


async def snapshot_of(tier: str = "lite", *, name: str = "Acme Ltd.") -> dict[str, Any]:
    scene = Scene()
    scene.on(tier)
    scene.used("agent_executions", 120_000)
    scene.used("llm_input_tokens", 1_234_567, "2026-10-03T10:00", model="gpt4")
    scene.used("cpu", "100.5", "2026-10-04T10:00")
    # Through JSON, as PostgreSQL gives it back.
    snapshot: dict[str, Any] = json.loads(canonical_json((await scene.bill_one()).snapshot))
    snapshot["bill_to"]["name"] = name
    return snapshot


def pages_of(pdf: bytes) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages]


async def test_the_invoice_says_who_when_what_and_how_much() -> None:
    first, annex = pages_of(render_pdf(await snapshot_of()))
    for text in (
        "Meterbook Example Inc.",
        "MB-2026-000001",
        "Acme Ltd.",
        "November 3, 2026",
        "November 18, 2026",
        "October 1 – 31, 2026",
        "Germany",
        "$151.07",  # 99 + 20,000 × 0.0005 + 1,234.567 × 0.03 (37.04) + 5.03
        "1,234,567",
        "$0.0005",
        "/ 1,000 tokens",
        "$37.04",
        "Page 1 of 2",
    ):
        assert text in first, text
    assert "Usage behind this invoice" in annex
    assert "100.5" in annex
    assert (await snapshot_of())["annex"]["digest"] in annex.replace("\n", "")


@pytest.mark.parametrize("tier", sorted(path.stem for path in (templates_folder() / "tiers").iterdir()))
async def test_every_tier_has_a_template_that_renders(tier: str) -> None:
    scene = Scene()
    scene.on(tier, started="2026-10-01")
    scene.used("agent_executions", 5)
    snapshot = json.loads(canonical_json((await scene.bill_one()).snapshot))
    html = document_html(snapshot)
    assert TIERS[tier].name.split(",")[0] in html
    base = copy.deepcopy(snapshot)
    base["plan"]["id"] = "another-company"
    assert document_html(base) != html, "a tier adds something of its own"
    assert "another-company" not in document_html(base)


async def test_the_same_snapshot_gives_the_same_bytes() -> None:
    snapshot = await snapshot_of()
    assert render_pdf(snapshot) == render_pdf(copy.deepcopy(snapshot))
    other = render_pdf(await snapshot_of(name="Someone else"))
    assert other != render_pdf(snapshot)


async def test_the_document_is_an_archive_pdf_with_its_fonts() -> None:
    reader = PdfReader(io.BytesIO(render_pdf(await snapshot_of())))
    assert b'pdfaid:part="3"' in reader.trailer["/Root"]["/Metadata"].get_data()  # type: ignore[index]
    assert reader.metadata is not None
    assert reader.metadata.title == "Invoice MB-2026-000001 · Meterbook Example Inc."


NASTY = '<script>alert(1)</script><img src="file:///etc/passwd"> {{ 7 * 7 }} ąęłİ Ünï “x” & Co.'


async def test_names_are_data_never_markup() -> None:
    html = document_html(await snapshot_of(name=NASTY))
    assert "<script>" not in html
    assert "<img" not in html
    (first, *_) = pages_of(render_pdf(await snapshot_of(name=NASTY)))
    text = first.replace("\n", " ")
    assert "{{ 7 * 7 }}" in text
    assert "ąęłİ Ünï “x” & Co." in text


async def test_many_lines_long_names_and_negative_amounts_stay_on_the_page() -> None:
    snapshot = await snapshot_of(
        name="Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
    )
    line = snapshot["groups"][1]["lines"][1]
    for number in range(40):
        snapshot["groups"][1]["lines"].append(
            {**line, "description": f"Line — number {number}", "amount": "-12345.67", "corrects": "MB-2026-000001"}
        )
    pages = pages_of(render_pdf(snapshot))
    assert len(pages) >= 3
    assert sum(page.count("difference to MB-2026-000001") for page in pages) == 40
    assert sum(page.count("-$12,345.67") for page in pages) == 40
    assert f"Page {len(pages)} of {len(pages)}" in pages[-1]
    assert "QUANTIT" in pages[1], "the table's head is repeated"


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


async def test_a_snapshot_that_lacks_something_is_an_error_not_a_blank() -> None:
    snapshot = await snapshot_of()
    del snapshot["seller"]["tax_id"]
    with pytest.raises(UndefinedError):
        document_html(snapshot)


@pytest.mark.parametrize(
    ("currency", "amount", "shown"),
    [
        ("USD", "1234.50", "$1,234.50"),
        ("EUR", "0.00", "€0.00"),
        ("JPY", "1234", "¥1,234"),
        ("KWD", "1.234", "KWD 1.234"),
    ],
)
async def test_money_is_shown_with_its_currencys_minor_unit(currency: str, amount: str, shown: str) -> None:
    snapshot = await snapshot_of()
    snapshot["invoice"]["currency"], snapshot["total"] = currency, amount
    assert shown in document_html(snapshot).replace("\xa0", " ")


async def test_the_child_process_renders_the_same_bytes() -> None:
    snapshot = await snapshot_of()
    workers = PdfWorkers(processes=1)
    try:
        assert await workers.render(snapshot) == render_pdf(snapshot)
    finally:
        workers.close()
