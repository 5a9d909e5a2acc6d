"""Loads catalogue files into typed plans, meters and features, or refuses them with every fault: file, line, path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from catalogues.domain.edition import Catalogue, Edition
from catalogues.read_date import read_instant
from catalogues.read_features import read_feature, read_given
from catalogues.read_meter import read_meter
from catalogues.yaml_places import place_faults
from core.errors import Fault, InvalidInputError
from core.meters import Meter
from core.read_yaml import read_yaml
from quotas.domain.entitlement import Entitlement, Feature
from rating.domain.digest import digest_of
from rating.domain.fields import Fields, check_name
from rating.domain.plan import Plan, read_charges, read_plan

SHIPPED = ("meters.yaml", "tiers.yaml", "plans.yaml", "services.yaml")


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


def load_catalogue(
    files: Sequence[CatalogueFile], known_meters: Iterable[Meter] = (), known_features: Iterable[Feature] = ()
) -> Catalogue:
    """Return what the files hold; plans may use what is known already and what any of the files defines.

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
            document.note_twice("meters", meter.meter_id, meters, faults)
            meters[meter.meter_id] = meter
    all_meters = {meter.meter_id: meter for meter in known_meters} | meters
    features: dict[str, Feature] = {}
    for document in documents:
        for feature in document.read_features(all_meters, faults):
            document.note_twice("features", feature.feature_id, features, faults)
            features[feature.feature_id] = feature
    all_features = {feature.feature_id: feature for feature in known_features} | features
    plans: dict[str, tuple[str, Plan]] = {}
    given: dict[str, tuple[Entitlement, ...]] = {}
    editions: dict[str, Edition] = {}
    for document in documents:
        for plan, gives in document.read_plans(all_meters, all_features, faults):
            document.note_twice("plans", plan.plan_id, plans, faults)
            plans[plan.plan_id] = (document.catalogue, plan)
            if gives:
                given[plan.plan_id] = gives
        if document.catalogue in editions:
            reason = f"two files call themselves the catalogue {document.catalogue!r}"
            document.note(Fault("duplicate_id", reason, "catalogue"), faults)
        editions[document.catalogue] = document.edition if not faults else Edition(document.catalogue, None, None, "")
    if faults:
        raise InvalidInputError(faults)
    return Catalogue(
        tuple(meters.values()), tuple(plans.values()), tuple(features.values()), given, tuple(editions.values())
    )


class _Document:
    """One file's content on its way into typed objects."""

    def __init__(self, file: str, content: Any, lines: Mapping[str, int]) -> None:
        self._file, self._lines = file, lines
        self._own_faults: list[Fault] = []
        self._fields, self._content = Fields(content, "", self._own_faults), content
        self.catalogue = self._fields.text("catalogue", default=Path(file).stem)
        self._version = self._fields.whole("version", 1) if self._fields.has("version") else None
        self._effective_from = read_instant(self._fields, "effective_from")
        self._meters = self._fields.mapping("meters")
        self._features = self._fields.mapping("features")
        self._charge_sets = self._fields.mapping("charge_sets")
        self._plans = self._fields.mapping("plans")
        self._fields.finish()

    @property
    def edition(self) -> Edition:
        """Return which version the file says it is, and the digest of all else; only of a file without faults."""
        rest = {name: value for name, value in self._content.items() if name not in ("catalogue", "version")}
        return Edition(self.catalogue, self._version, self._effective_from, digest_of(rest))

    def note_twice(self, kind: str, name: str, known: Mapping[str, object], faults: list[Fault]) -> None:
        """Add a fault if another file has defined the same thing."""
        if name in known:
            self.note(Fault("duplicate_id", f"{name!r} is defined in two files", f"{kind}.{name}"), faults)

    def note(self, fault: Fault, faults: list[Fault]) -> None:
        """Add a fault with this file's name and the line of the nearest path that stands in it."""
        faults += place_faults([fault], self._file, self._lines)

    def read_meters(self, faults: list[Fault]) -> list[Meter]:
        """Read the file's meters, and report the faults of its outermost level."""
        meters = []
        for meter_id, document in self._meters.items():
            meters.append(read_meter(meter_id, document, self._own_faults))
        for fault in self._own_faults:
            self.note(fault, faults)
        self._own_faults.clear()
        return meters

    def read_features(self, meters: Mapping[str, Meter], faults: list[Fault]) -> list[Feature]:
        """Read the file's features."""
        found: list[Fault] = []
        features = [read_feature(name, document, meters, found) for name, document in self._features.items()]
        for fault in found:
            self.note(fault, faults)
        return features

    def read_plans(
        self, meters: Mapping[str, Meter], features: Mapping[str, Feature], faults: list[Fault]
    ) -> list[tuple[Plan, tuple[Entitlement, ...]]]:
        """Read the file's plans, each with what it gives besides prices."""
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
            gives: tuple[Entitlement, ...] = ()
            if isinstance(document, dict) and "features" in document:
                gives = read_given(document["features"], features, f"{path}.features", found)
                document = {name: value for name, value in document.items() if name != "features"}
            plan = read_plan(plan_id, _with_sets(document, sets, path, found), meters, path, found)
            if plan is not None:
                plans.append((plan, gives))
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
