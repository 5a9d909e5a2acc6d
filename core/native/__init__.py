"""Parts of the hot path in C, built at installation where there is a compiler; without them everything works, slower.

`reader` is None then. What the parts do is defined by the Python code they stand in for (docs/decisions/0018).
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["reader"]

reader: Any
try:
    reader = importlib.import_module("core.native.reader")
except ImportError:
    reader = None
