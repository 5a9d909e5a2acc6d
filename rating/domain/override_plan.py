"""Overrides of a plan: the plan's own form, naming only what differs.

`{"charges": [{"id": "base", "flat_amount": "8000"}], "limits": {...}}` replaces the named fields of the charge `base`;
a charge with a new id is added as it stands, and a field set to null is dropped (`{"id": "x", "model": null}` has no
model any more and is refused like any such charge). The result is read like any plan, so an override is checked like a
catalogue.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from core.errors import Fault, InvalidInputError

OVERRIDABLE = ("charges", "limits", "name")


def override_plan(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan's document with the overrides laid over it; raises `InvalidInputError` for a wrong shape."""
    _check_shape(overrides)
    merged: dict[str, Any] = copy.deepcopy(dict(document))
    if "name" in overrides:
        merged["name"] = overrides["name"]
    limits = {**merged.get("limits", {}), **overrides.get("limits", {})}
    merged["limits"] = {meter_id: limit for meter_id, limit in limits.items() if limit is not None}
    if not merged["limits"]:
        del merged["limits"]
    charges = merged.setdefault("charges", [])
    for charge in overrides.get("charges", []):
        _override_charge(charges, charge)
    return merged


def merge_overrides(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return one set of overrides that does what `first` and then `second` do; raises `InvalidInputError`."""
    for overrides in (first, second):
        _check_shape(overrides)
    merged: dict[str, Any] = {**copy.deepcopy(dict(first)), **copy.deepcopy(dict(second))}
    limits = {**first.get("limits", {}), **second.get("limits", {})}
    if limits:
        merged["limits"] = copy.deepcopy(limits)
    charges: dict[str, dict[str, Any]] = {}
    for charge in (*first.get("charges", []), *second.get("charges", [])):
        charges[charge["id"]] = {**charges.get(charge["id"], {}), **copy.deepcopy(dict(charge))}
    if charges:
        merged["charges"] = list(charges.values())
    return merged


def _check_shape(overrides: Mapping[str, Any]) -> None:
    faults = [
        Fault("unknown_field", f"a contract may override {', '.join(OVERRIDABLE)}", f"overrides.{name}")
        for name in overrides
        if name not in OVERRIDABLE
    ]
    if not isinstance(overrides.get("limits", {}), Mapping):
        faults.append(Fault("invalid_type", "expected a mapping of meters", "overrides.limits"))
    charges = overrides.get("charges", [])
    if not isinstance(charges, list):
        faults.append(Fault("invalid_type", "expected a list of charges", "overrides.charges"))
        charges = []
    for index, charge in enumerate(charges):
        if not isinstance(charge, Mapping) or not isinstance(charge.get("id"), str):
            faults.append(Fault("missing_field", "expected a charge with its id", f"overrides.charges[{index}]"))
    if faults:
        raise InvalidInputError(faults)


def _override_charge(charges: list[dict[str, Any]], override: Mapping[str, Any]) -> None:
    for index, charge in enumerate(charges):
        if charge["id"] == override["id"]:
            charges[index] = _without_nulls({**charge, **override})
            return
    charges.append(_without_nulls(override))


def _without_nulls(charge: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in charge.items() if value is not None}
