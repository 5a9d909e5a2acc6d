"""The rows of the fault table, one module per family of faults; importing them fills `ROWS`."""

from tests.chaos.scenarios import crashes, failpoints, rebalances  # noqa: F401
from tests.chaos.scenarios.registry import ROWS, run_row

__all__ = ["ROWS", "run_row"]
