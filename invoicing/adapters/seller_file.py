"""Reads who sells from YAML: the file of the settings, or the example that ships."""

from __future__ import annotations

from base64 import b64encode
from importlib import resources
from pathlib import Path

from core.errors import Fault, InvalidInputError
from core.read_yaml import read_yaml
from invoicing.domain.seller import Seller, read_seller
from runtime.settings import Settings

# Every snapshot holds the logo, so it has to be small; a drawing (SVG) is, and prints better.
_LOGO_MAX_BYTES = 24_576
_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


def load_seller(settings: Settings) -> Seller:
    """Return the seller; raises `InvalidInputError` with file, path and reason of every fault."""
    path = settings.seller_file
    try:
        content = path.read_bytes() if path else (resources.files("invoicing") / "seller.yaml").read_bytes()
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(path))]) from None
    name = str(path) if path else "seller.yaml"
    document, _ = read_yaml(content, name)
    if path and isinstance(document, dict) and isinstance(document.get("logo"), str):
        document["logo"] = _picture(path.parent / document["logo"])
    return read_seller(document, name)


def _picture(path: Path) -> str:
    """Return a picture as a `data:` URI; one that is none of the kinds taken is refused by who reads the seller."""
    try:
        content = path.read_bytes()[: _LOGO_MAX_BYTES + 1]
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(path))]) from None
    if len(content) > _LOGO_MAX_BYTES:
        raise InvalidInputError([Fault("too_large", f"a logo has at most {_LOGO_MAX_BYTES} bytes", str(path))])
    kind = _KINDS.get(path.suffix.lower(), "application/octet-stream")
    return f"data:{kind};base64,{b64encode(content).decode()}"
