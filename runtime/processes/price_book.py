"""Reads a price book for `meterbook simulate`: here rating meets the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalogues.load_catalogue import load_catalogue, read_files
from core.meters import Meter


def read_price_book(path: Path, meters: Mapping[str, Meter]) -> dict[str, Mapping[str, Any]]:
    """Return a catalogue file's plan documents by name; raises `InvalidInputError` with every fault and its place."""
    catalogue = load_catalogue(read_files([path]), meters.values())
    return {plan.plan_id: plan.document for _, plan in catalogue.plans}
