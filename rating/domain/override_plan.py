"""A contract's overrides: the plan's own form, naming only what differs.

`{"charges": [{"id": "base", "flat_amount": "8000"}], "limits": {...}}` replaces the named fields of the charge `base`;
a charge with a new id is added as it stands. The result is read like any plan, so an override is checked like a
catalogue, and a field set to null is dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from core.errors import Fault, InvalidInputError

_KNOWN = ("charges", "limits", "name")


def override_plan(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan's document with the overrides laid over it; raises `InvalidInputError` for a wrong shape."""
    merged: dict[str, Any] = copy.deepcopy(dict(document))
    faults = [
        Fault("unknown_field", f"a contract may override {', '.join(_KNOWN)}", f"overrides.{name}")
        for name in overrides
        if name not in _KNOWN
    ]
    if "name" in overrides:
        merged["name"] = overrides["name"]
    limits = overrides.get("limits", {})
    if isinstance(limits, Mapping):
        merged["limits"] = {**merged.get("limits", {}), **limits}
    else:
        faults.append(Fault("invalid_type", "expected a mapping of meters", "overrides.limits"))
    charges = overrides.get("charges", [])
    if not isinstance(charges, list):
        faults.append(Fault("invalid_type", "expected a list of charges", "overrides.charges"))
        charges = []
    for index, charge in enumerate(charges):
        path = f"overrides.charges[{index}]"
        if not isinstance(charge, Mapping) or not isinstance(charge.get("id"), str):
            faults.append(Fault("missing_field", "expected a charge with its id", path))
        else:
            _override_charge(merged["charges"], charge)
    if faults:
        raise InvalidInputError(faults)
    if not merged["limits"]:
        del merged["limits"]
    return merged


def _override_charge(charges: list[dict[str, Any]], override: Mapping[str, Any]) -> None:
    for index, charge in enumerate(charges):
        if charge["id"] == override["id"]:
            laid_over = {**charge, **override}
            charges[index] = {name: value for name, value in laid_over.items() if value is not None}
            return
    charges.append(dict(override))
