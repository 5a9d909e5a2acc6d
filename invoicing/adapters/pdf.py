"""HTML to PDF/A-3b by WeasyPrint. Owns that rendering reaches nothing and that a snapshot always gives the same bytes.

Only `data:` and the bundled fonts are fetched; no other font is looked for but those of `METERBOOK_FONTS_DIR` and of
the extra `cjk`.
The e-invoice is embedded while the file is written, so it is never taken apart again.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from invoicing.document_html import document_html, templates_folder
from invoicing.document_words import load_words
from invoicing.domain.document import Mark, open_snapshot

PDF_VARIANT = "pdf/a-3b"
# The name and the metadata that Factur-X 1.0 prescribes for the profile EN 16931 (§6.2 and §6.3 of its specification).
ATTACHMENT_NAME = "factur-x.xml"
_XMP = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:fx="urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#">
<fx:DocumentType>INVOICE</fx:DocumentType><fx:DocumentFileName>factur-x.xml</fx:DocumentFileName>
<fx:Version>1.0</fx:Version><fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>
</rdf:Description>
<rdf:Description rdf:about="" xmlns:pdfaExtension="http://www.aiim.org/pdfa/ns/extension/"
 xmlns:pdfaSchema="http://www.aiim.org/pdfa/ns/schema#" xmlns:pdfaProperty="http://www.aiim.org/pdfa/ns/property#">
<pdfaExtension:schemas><rdf:Bag><rdf:li rdf:parseType="Resource">
<pdfaSchema:schema>Factur-X PDFA Extension Schema</pdfaSchema:schema>
<pdfaSchema:namespaceURI>urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#</pdfaSchema:namespaceURI>
<pdfaSchema:prefix>fx</pdfaSchema:prefix><pdfaSchema:property><rdf:Seq>{properties}</rdf:Seq></pdfaSchema:property>
</rdf:li></rdf:Bag></pdfaExtension:schemas></rdf:Description></rdf:RDF>"""
_PROPERTY = """<rdf:li rdf:parseType="Resource"><pdfaProperty:name>{name}</pdfaProperty:name>
<pdfaProperty:valueType>Text</pdfaProperty:valueType><pdfaProperty:category>external</pdfaProperty:category>
<pdfaProperty:description>{description}</pdfaProperty:description></rdf:li>"""
_PROPERTIES = {
    "DocumentFileName": "name of the embedded XML invoice file",
    "DocumentType": "INVOICE",
    "Version": "The actual version of the Factur-X XML schema",
    "ConformanceLevel": "The conformance level of the embedded Factur-X data",
}
_FIXED_TIME = "1767225600"
# Noto Sans CJK: Chinese, Japanese and Korean in one file (SIL Open Font License).
_CJK_PACKAGE = "noto_cjk_sans_otc"


@dataclass(frozen=True, slots=True)
class Pdf:
    """A file, and the characters in it that no font has: they are drawn as empty boxes."""

    content: bytes
    glyphs_missing: str


def render_pdf(snapshot: Mapping[str, Any], mark: Mark = "", e_invoice: bytes | None = None) -> Pdf:
    """Return the PDF/A-3b of a snapshot, with its CII XML inside if there is one; runs wherever it is called."""
    _look_for_no_other_fonts()
    from weasyprint import Attachment

    html = document_html(snapshot, mark)
    identifier = hashlib.sha256(html.encode() + (e_invoice or b"")).digest()[:16]
    shown = open_snapshot(snapshot)
    style = _style()
    # Subset fonts carry the time they were made: a fixed one keeps the bytes a function of the snapshot.
    os.environ["SOURCE_DATE_EPOCH"] = _FIXED_TIME
    options: dict[str, Any] = {}
    if e_invoice is not None:
        issued = shown["invoice"]["issued_at"]
        made = datetime.fromisoformat(issued) if issued else datetime(2026, 1, 1, tzinfo=UTC)
        options["attachments"] = [
            Attachment(
                string=e_invoice,
                name=ATTACHMENT_NAME,
                description="Factur-X",
                created=made,
                modified=made,
                relationship="Alternative",
            )
        ]
        options["xmp_metadata"] = [_xmp_uri()]
    with _glyphs_missing() as missing:
        content: bytes = style.page(html).write_pdf(
            stylesheets=[style.sheet, _numbering(shown["language"])],
            font_config=style.fonts,
            pdf_variant=PDF_VARIANT,
            pdf_identifier=identifier,
            **options,
        )
    return Pdf(content, "".join(sorted(missing)))


class _MissingGlyphs(logging.Handler):
    """Hears of characters that no font has from the only one who knows: the library says them when it draws."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, str) and record.msg.startswith(".notdef glyph") and isinstance(record.args, tuple):
            self.found.add(str(record.args[0]))


@contextmanager
def _glyphs_missing() -> Iterator[set[str]]:
    heard, logger = _MissingGlyphs(), logging.getLogger("weasyprint")
    logger.addHandler(heard)
    try:
        yield heard.found
    finally:
        logger.removeHandler(heard)


@functools.cache
def _xmp_uri() -> str:
    from base64 import b64encode

    listed = "".join(
        _PROPERTY.format(name=name, description=escape(description)) for name, description in _PROPERTIES.items()
    )
    return "data:text/xml;base64," + b64encode(_XMP.format(properties=listed).encode()).decode()


def extra_fonts() -> list[Path]:
    """Return folders of fonts beside the bundled ones: the operator's, and those of the extra `cjk` if it is there."""
    operators = os.environ.get("METERBOOK_FONTS_DIR")
    package = util.find_spec(_CJK_PACKAGE)
    installed = (package.submodule_search_locations or ()) if package else ()
    return [Path(folder) for folder in ([operators] if operators else []) + list(installed)]


@functools.cache
def _look_for_no_other_fonts() -> None:
    """Give fontconfig a configuration that knows no font of the machine; must come before WeasyPrint is loaded."""
    folder = Path(mkdtemp(prefix="meterbook-fonts-"))
    atexit.register(_remove, folder)
    named = "".join(f"<dir>{escape(str(extra))}</dir>" for extra in extra_fonts())
    configuration = folder / "fonts.conf"
    configuration.write_text(
        f'<?xml version="1.0"?><fontconfig>{named}<cachedir>{escape(str(folder))}</cachedir></fontconfig>'
    )
    os.environ["FONTCONFIG_FILE"] = str(configuration)
    with warnings.catch_warnings():
        # That fontconfig knows no font of the machine is what is wanted.
        warnings.filterwarnings("ignore", "No fonts configured")
        import weasyprint.text.fonts  # noqa: F401


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Style:
    page: Callable[[str], Any]
    fonts: Any
    sheet: Any


@functools.cache
def _style() -> _Style:
    """Read stylesheet and fonts once per process: that is half the cost of a one-page document."""
    from weasyprint import CSS
    from weasyprint.text.fonts import FontConfiguration

    # Let go of before the interpreter takes the library apart, which the fonts' own clean-up does not survive.
    atexit.register(_style.cache_clear)
    fetcher, fonts = _bundled_fetcher(), FontConfiguration()
    text = _without_constants((templates_folder() / "invoice.css").read_text())
    return _Style(
        _page_type(fetcher), fonts, CSS(string=text, base_url="asset:", url_fetcher=fetcher, font_config=fonts)
    )


def _without_constants(text: str) -> str:
    """Put in the values of `:root`, which no document changes: looking up a variable takes as long as ten values."""
    found = re.search(r":root \{([^}]*)\}", text)
    for name, value in re.findall(r"(--[\w-]+): ([^;]+);", found.group(1) if found else ""):
        text = text.replace(f"var({name})", value)
    return text


@functools.cache
def _numbering(language: str) -> Any:
    from weasyprint import CSS

    return CSS(string=_page_numbers(language), font_config=_style().fonts)


def _page_numbers(language: str) -> str:
    """Return the style of "Page n of m" in a language."""
    before, between, after = load_words(language).text("page_of", page="\0", pages="\0").split("\0")
    return f'@page {{ @bottom-right {{ content: "{before}" counter(page) "{between}" counter(pages) "{after}" }} }}'


def _page_type(fetcher: Any) -> Callable[[str], Any]:
    """Return what makes a document of XHTML, as the templates write it, with no styles but the bundled sheet's.

    The library's own parser is for any HTML there may be, and so is its own sheet: together a sixth of a document.
    """
    from cssselect2 import ElementWrapper
    from weasyprint import HTML

    class Page(HTML):  # type: ignore[misc]
        def __init__(self, text: str) -> None:
            root = ElementTree.fromstring(text)  # noqa: S314 - our own template, every text in it is escaped
            self.base_url, self.url_fetcher, self.media_type = "asset:", fetcher, "print"
            self.wrapper_element = ElementWrapper.from_html_root(root)
            self.etree_element = self.wrapper_element.etree_element

        def _ua_stylesheets(self, forms: bool = False) -> list[Any]:
            return []

    return Page


def _bundled_fetcher() -> Any:
    from weasyprint.urls import URLFetcher, URLFetcherResponse

    folder = templates_folder()
    allowed = {f"asset:fonts/{path.name}": path for path in (folder / "fonts").glob("*.ttf")}

    class BundledFetcher(URLFetcher):  # type: ignore[misc]
        """Fetches `data:` and `asset:` (a bundled font by its name); refuses everything else, files included."""

        def fetch(self, url: str, headers: Any = None) -> Any:
            if url.startswith("data:"):
                return super().fetch(url, headers)
            if url not in allowed:
                raise ValueError(f"a document may not fetch {url[:100]}")
            return URLFetcherResponse(url, allowed[url].read_bytes(), {"Content-Type": "font/ttf"})

    return BundledFetcher(allowed_protocols=["data"])
