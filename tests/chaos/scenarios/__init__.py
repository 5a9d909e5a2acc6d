"""The rows of the fault table, one module per family of faults; importing them fills `ROWS`."""

from tests.chaos.scenarios import (  # noqa: F401
    bad_input,
    broker,
    clickhouse_faults,
    clocks,
    crashes,
    duplicates,
    failpoints,
    invoice_runs,
    mail_faults,
    network,
    postgres_faults,
    providers,
    rebalances,
    redis_faults,
    replay,
    skew,
    two_invoicers,
)
from tests.chaos.scenarios.registry import ROWS, run_row

NAMES = tuple(sorted(ROWS, key=lambda name: int(name[1:])))
__all__ = ["NAMES", "ROWS", "run_row"]
