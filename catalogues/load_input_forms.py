"""Loads how input forms become CloudEvents: the file that ships with the product, or another company's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from core.errors import Fault, InvalidInputError
from core.input_forms.mapping import FormMapping, read_mapping

SHIPPED = "input_forms.yaml"


def load_input_forms(path: Path | None = None) -> FormMapping:
    """Return the mapping in `path`, or the shipped one; raises `InvalidInputError` with all faults."""
    if path is None:
        return read_mapping((resources.files("catalogues") / SHIPPED).read_bytes(), SHIPPED)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(path))]) from None
    return read_mapping(content, str(path))
