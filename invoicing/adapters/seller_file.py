"""Reads who sells from YAML: the file of the settings, or the example that ships."""

from __future__ import annotations

from importlib import resources

from core.errors import Fault, InvalidInputError
from core.read_yaml import read_yaml
from invoicing.domain.seller import Seller, read_seller
from runtime.settings import Settings


def load_seller(settings: Settings) -> Seller:
    """Return the seller; raises `InvalidInputError` with file, path and reason of every fault."""
    path = settings.seller_file
    try:
        content = path.read_bytes() if path else (resources.files("invoicing") / "seller.yaml").read_bytes()
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(path))]) from None
    name = str(path) if path else "seller.yaml"
    document, _ = read_yaml(content, name)
    return read_seller(document, name)
