"""Reads the tax tables from YAML: those that ship, each replaced by a file of the same name in the settings' folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from core.errors import Fault, InvalidInputError
from core.read_yaml import read_yaml
from invoicing.domain.tax.tables import TaxTables, read_tables


def load_tax_tables(folder: Path | None = None) -> TaxTables:
    """Return the tables. A file in `folder` takes the place of the shipped one of its name, others are added.

    Raises `InvalidInputError` with file, path and reason of every fault.
    """
    shipped = resources.files("invoicing") / "data" / "tax"
    contents = {one.name: one.read_bytes() for one in shipped.iterdir() if one.name.endswith(".yaml")}
    if folder is not None:
        try:
            contents |= {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".yaml"}
        except OSError as error:
            raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(folder))]) from None
    documents = [(name, read_yaml(content, name)[0]) for name, content in sorted(contents.items())]
    tables, faults = read_tables(documents)
    if faults:
        raise InvalidInputError(faults)
    return tables
