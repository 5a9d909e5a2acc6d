"""The seller's logo, colour and texts: configuration that every snapshot takes along."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from core.errors import InvalidInputError
from invoicing.adapters.pdf import render_pdf
from invoicing.adapters.seller_file import load_seller
from invoicing.document_html import document_html
from runtime.settings import Settings
from tests.invoicing.documents.samples import snapshot

pytestmark = pytest.mark.slow

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 10"><rect width="40" height="10" fill="#b91c1c"/></svg>'
YAML = (
    "name: X\naddress: [A, B]\ncountry: DE\nemail: a@b.co\ntax_id: '1'\nnumber_prefix: X\npayment_terms: Pay.\n"
    "footer: X\ncolour: '#b91c1c'\ntax: {regime: none, reason: None is charged.}\n"
)


def seller_of(folder: Path, more: str = "") -> dict[str, object]:
    file = folder / "seller.yaml"
    file.write_text(YAML + more)
    return load_seller(Settings.model_construct(seller_file=file)).as_document()


def test_a_logo_stands_on_the_document_in_place_of_the_letter(tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text(SVG)
    picture = io.BytesIO()
    Image.new("RGB", (40, 10), "#b91c1c").save(picture, "PNG")
    (tmp_path / "logo.png").write_bytes(picture.getvalue())
    plain = document_html(snapshot(seller=seller_of(tmp_path)))
    assert '<span class="mark">X</span>' in plain
    assert "--accent: #b91c1c" in plain
    for name in ("logo.svg", "logo.png"):
        seller = seller_of(tmp_path, f"logo: {name}\n")
        html = document_html(snapshot(seller=seller))
        assert 'class="logo" src="data:image/' in html
        assert 'class="mark"' not in html
        assert render_pdf(snapshot(seller=seller)) != render_pdf(snapshot(seller=seller_of(tmp_path)))


def test_texts_are_the_readers_where_the_seller_has_them(tmp_path: Path) -> None:
    seller = seller_of(tmp_path, "translations: {de: {payment_terms: Bitte zahlen.}}\n")
    assert "Bitte zahlen." in document_html(snapshot(language="de", seller=seller))
    assert "Pay." in document_html(snapshot(language="es", seller=seller))


@pytest.mark.parametrize(
    ("more", "content", "code"),
    [
        ("logo: logo.gif\n", b"GIF89a", "invalid_logo"),
        ("logo: logo.svg\n", b"x" * 30_000, "too_large"),
        ("logo: logo.svg\n", None, "unreadable_file"),
        ("logo: ''\n", None, "unreadable_file"),
        ("translations: {fr: {footer: X}}\n", None, "unknown_language"),
        ("translations: {de: {name: X}}\n", None, "unknown_field"),
    ],
)
def test_what_cannot_be_printed_is_refused(tmp_path: Path, more: str, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / more.split(": ")[1].strip()).write_bytes(content)
    with pytest.raises(InvalidInputError) as refused:
        seller_of(tmp_path, more)
    assert code in {fault.code for fault in refused.value.faults}
