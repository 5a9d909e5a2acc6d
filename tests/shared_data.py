"""Where the reference traces live: beside a checkout, never inside it. Tests marked `shared_data` need them."""

from pathlib import Path

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
