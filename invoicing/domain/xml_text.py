"""Text that can stand in XML 1.0: pages and e-invoices are XML, and a name can hold anything."""

from __future__ import annotations

import re

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean_xml_text(text: str) -> str:
    """Leave out what XML 1.0 has no place for: control characters, halves of surrogate pairs, U+FFFE and U+FFFF."""
    return _NOT_XML.sub("", text)
