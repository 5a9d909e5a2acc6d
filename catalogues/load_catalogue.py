"""Loads catalogue files into typed plans and meters, or refuses them with every fault: file, line, path, reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from catalogues.read_meter import read_meter
from core.errors import Fault, InvalidInputError
from core.meters import Meter
from core.read_yaml import read_yaml
from rating.domain.fields import Fields, check_name
from rating.domain.plan import Plan, read_charges, read_plan

SHIPPED = ("meters.yaml", "tiers.yaml")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the files hold: meters, and plans with the name of the catalogue each belongs to."""

    meters: tuple[Meter, ...]
    plans: tuple[tuple[str, Plan], ...]


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """One file's name (as people see it) and its bytes."""

    name: str
    content: bytes


def shipped_files() -> list[CatalogueFile]:
    """Return the catalogue that ships with the product."""
    folder = resources.files("catalogues")
    return [CatalogueFile(name, (folder / name).read_bytes()) for name in SHIPPED]


def read_files(paths: Iterable[Path]) -> list[CatalogueFile]:
    """Read catalogue files; raises `InvalidInputError` naming each one that cannot be read."""
    files, faults = [], []
    for path in paths:
        try:
            files.append(CatalogueFile(str(path), path.read_bytes()))
        except OSError as error:
            faults.append(Fault("unreadable_file", error.strerror or str(error), str(path)))
    if faults:
        raise InvalidInputError(faults)
    return files


def load_catalogue(files: Sequence[CatalogueFile], known_meters: Iterable[Meter] = ()) -> Catalogue:
    """Return the files' meters and plans; plans may use `known_meters` and meters of any of the files.

    Raises `InvalidInputError` with all faults of all files at once.
    """
    faults: list[Fault] = []
    documents: list[_Document] = []
    for file in files:
        try:
            content, lines = read_yaml(file.content, file.name)
            documents.append(_Document(file.name, content, lines))
        except InvalidInputError as refused:
            faults += refused.faults
    meters: dict[str, Meter] = {}
    for document in documents:
        for meter in document.read_meters(faults):
            if meter.meter_id in meters:
                reason = f"the meter {meter.meter_id!r} is defined in two files"
                document.note(Fault("duplicate_id", reason, f"meters.{meter.meter_id}"), faults)
            meters[meter.meter_id] = meter
    all_meters = {meter.meter_id: meter for meter in known_meters} | meters
    plans: dict[str, tuple[str, Plan]] = {}
    for document in documents:
        for plan in document.read_plans(all_meters, faults):
            if plan.plan_id in plans:
                reason = f"the plan {plan.plan_id!r} is defined in two files"
                document.note(Fault("duplicate_id", reason, f"plans.{plan.plan_id}"), faults)
            plans[plan.plan_id] = (document.catalogue, plan)
    if faults:
        raise InvalidInputError(faults)
    return Catalogue(tuple(meters.values()), tuple(plans.values()))


class _Document:
    """One file's content on its way into typed objects."""

    def __init__(self, file: str, content: Any, lines: Mapping[str, int]) -> None:
        self._file, self._lines = file, lines
        self._own_faults: list[Fault] = []
        self._fields = Fields(content, "", self._own_faults)
        self.catalogue = self._fields.text("catalogue", default=Path(file).stem)
        self._meters = self._fields.mapping("meters")
        self._charge_sets = self._fields.mapping("charge_sets")
        self._plans = self._fields.mapping("plans")
        self._fields.finish()

    def note(self, fault: Fault, faults: list[Fault]) -> None:
        """Add a fault with this file's name and the line of the nearest path that stands in it."""
        path, line = fault.path, None
        while line is None and path:
            line = self._lines.get(path)
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
        place = f"{self._file}:{line or self._lines.get('', 1)}"
        faults.append(Fault(fault.code, fault.reason, f"{place}: {fault.path}" if fault.path else place))

    def read_meters(self, faults: list[Fault]) -> list[Meter]:
        """Read the file's meters, and report the faults of its outermost level."""
        meters = []
        for meter_id, document in self._meters.items():
            meters.append(read_meter(meter_id, document, self._own_faults))
        for fault in self._own_faults:
            self.note(fault, faults)
        self._own_faults.clear()
        return meters

    def read_plans(self, meters: Mapping[str, Meter], faults: list[Fault]) -> list[Plan]:
        """Read the file's plans."""
        found: list[Fault] = []
        sets: dict[str, list[Any]] = {}
        for name, charges in self._charge_sets.items():
            path = f"charge_sets.{name}"
            if isinstance(charges, list):
                before = len(found)
                read_charges(charges, meters, path, found, "USD")
                sets[name] = charges if len(found) == before else []
            else:
                found.append(Fault("invalid_type", "expected a list of charges", path))
        plans = []
        for plan_id, document in self._plans.items():
            path = f"plans.{plan_id}"
            if not check_name(plan_id):
                found.append(Fault("invalid_name", "a plan's name is lower-case letters, digits, _ . -", path))
            plan = read_plan(plan_id, _with_sets(document, sets, path, found), meters, path, found)
            if plan is not None:
                plans.append(plan)
        for fault in found:
            self.note(fault, faults)
        return plans


def _with_sets(document: object, sets: Mapping[str, list[Any]], path: str, faults: list[Fault]) -> object:
    """Return the plan with the charges of its sets after its own; its own charge of the same id wins.

    Own charges keep their place, so a fault's path still points into the file.
    """
    if not isinstance(document, dict) or "charge_sets" not in document:
        return document
    plan = {name: value for name, value in document.items() if name != "charge_sets"}
    named = document["charge_sets"]
    if not isinstance(named, list):
        faults.append(Fault("invalid_type", "expected a list of charge sets", f"{path}.charge_sets"))
        return plan
    own = plan.get("charges", [])
    charges = list(own) if isinstance(own, list) else []
    taken = {charge.get("id") for charge in charges if isinstance(charge, dict)}
    for index, name in enumerate(named):
        if not isinstance(name, str) or name not in sets:
            reason = f"no charge set is called {name!r}"
            faults.append(Fault("unknown_charge_set", reason, f"{path}.charge_sets[{index}]"))
            continue
        charges += [charge for charge in sets[name] if charge["id"] not in taken]
        taken |= {charge["id"] for charge in sets[name]}
    if isinstance(own, list):
        plan["charges"] = charges
    return plan
