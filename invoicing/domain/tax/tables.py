"""Rates by place and date, and which parts of a country are taxed otherwise. Read from documents, never from memory.

A rate that is not in the tables is not known; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from core.errors import Fault
from rating.domain.fields import Fields

_PLACE = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_KINDS = frozenset({"vat", "sales_tax"})
_UNCHECKED = "unchecked"
_SERVICES = frozenset({"taxable", "not_taxable", "depends", "no_sales_tax", "unknown"})
_POSTAL_CODES = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)?")
_NOT_IN_CODES = re.compile(r"[^A-Z0-9]")


@dataclass(frozen=True, slots=True)
class DatedRate:
    """A rate in percent and the first day it counts on."""

    since: date
    rate: Decimal


@dataclass(frozen=True, slots=True)
class Check:
    """What a place's rate was checked against; "" is nothing.

    `services` says whether software as a service is taxed there (`taxable`, `not_taxable`, `depends`, `no_sales_tax`,
    `unknown`), and decides nothing: the seller lists where it collects.
    """

    rate_source: str
    services: str
    services_source: str
    note: str


@dataclass(frozen=True, slots=True)
class Territory:
    """A part of a country, told by the beginning of its postal codes or by a range of them.

    `place` has a rate of its own in the tables; "" is outside the VAT area of the Union, though in a member state.
    """

    name: str
    country: str
    place: str
    postal_codes: tuple[str, ...]

    def holds(self, postal_code: str) -> bool:
        """Tell whether a postal code is of this territory."""
        code = _NOT_IN_CODES.sub("", postal_code.upper())
        for one in self.postal_codes:
            first, _, last = one.partition("-")
            if code.startswith(first) if not last else len(code) == len(first) and first <= code <= last:
                return True
        return False


@dataclass(frozen=True, slots=True)
class TaxTables:
    """All rates, by place, oldest first; the kind of tax of each place; territories by country.

    `needs_postal_code` are the countries of which so much is a territory that a buyer without postal code is unknown.
    """

    rates: Mapping[str, tuple[DatedRate, ...]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    territories: Mapping[str, tuple[Territory, ...]] = field(default_factory=dict)
    needs_postal_code: frozenset[str] = frozenset()
    checks: Mapping[str, Check] = field(default_factory=dict)

    def rate(self, place: str, on: date) -> Decimal | None:
        """Return the rate in percent that counts on a day, None if it is not known."""
        known = [one.rate for one in self.rates.get(place, ()) if one.since <= on]
        return known[-1] if known else None

    def territory(self, country: str, postal_code: str) -> Territory | None:
        """Return the territory a postal code is of, None for the country itself."""
        return next((one for one in self.territories.get(country, ()) if one.holds(postal_code)), None)


def read_tables(documents: Sequence[tuple[str, object]]) -> tuple[TaxTables, list[Fault]]:
    """Return the tables of documents with their file names, and every fault with its path."""
    faults: list[Fault] = []
    rates: dict[str, tuple[DatedRate, ...]] = {}
    kinds: dict[str, str] = {}
    territories: dict[str, tuple[Territory, ...]] = {}
    needs: set[str] = set()
    checks: dict[str, Check] = {}
    for file, document in documents:
        found: list[Fault] = []
        fields = Fields(document, "", found)
        if fields.has("rates"):
            kind = fields.choice("kind", _KINDS, "unknown_kind")
            for place, dated in fields.mapping("rates").items():
                if place in rates:
                    fields.fault(f"rates.{place}", "duplicate_place", f"{place} has rates in another file too")
                rates[place] = _read_rates(place, dated, Fields(dated, f"rates.{place}", found))
                kinds[place] = kind
        checks |= _read_checks(fields)
        for country, items in fields.mapping("territories").items():
            below = Fields(items, f"territories.{country}", found)
            if country in territories:
                fields.fault(f"territories.{country}", "duplicate_place", f"{country} has parts in another file too")
            if below.flag("postal_code_needed"):
                needs.add(country)
            territories[country] = _read_territories(country, below)
            below.finish()
        fields.finish()
        faults += [Fault(one.code, one.reason, f"{file}: {one.path}") for one in found]
    for country, parts in territories.items():
        for part in parts:
            if part.place and part.place not in rates:
                faults.append(Fault("unknown_rate", f"{part.name} has no rate", f"territories.{country}"))
    return TaxTables(rates, kinds, territories, frozenset(needs), checks), faults


def _read_checks(fields: Fields) -> dict[str, Check]:
    given = Fields(fields.mapping("sources"), fields.at("sources"), fields.faults)
    sources = {_UNCHECKED: "", **{name: given.text(name) for name in fields.mapping("sources")}}
    found = {}
    for place, document in fields.mapping("checks").items():
        below = Fields(document, fields.at(f"checks.{place}"), fields.faults)
        named = [below.text(name, default=_UNCHECKED) for name in ("rate", "by")]
        for name in set(named) - set(sources):
            below.fault("rate", "unknown_source", f"there is no source {name!r}")
        services = below.choice("services", _SERVICES, "unknown_services")
        rate_source, services_source = (sources.get(name, "") for name in named)
        found[place] = Check(rate_source, services, services_source, below.text("note", default=""))
        below.finish()
    return found


def _read_rates(place: str, document: object, fields: Fields) -> tuple[DatedRate, ...]:
    if not _PLACE.fullmatch(place):
        fields.fault("", "unknown_place", "expected a country, or a country and its part, such as DE or US-CA")
    dated = []
    for text in [str(day) for day in document] if isinstance(document, dict) else []:
        rate = fields.amount(text)
        if rate >= 100:
            fields.fault(text, "invalid_rate", "expected a rate below 100 percent")
        try:
            dated.append(DatedRate(date.fromisoformat(text), rate))
        except ValueError:
            fields.fault(text, "invalid_date", "expected a day such as 2021-01-01")
    if not dated:
        fields.fault("", "missing_field", "expected at least one day and rate")
    return tuple(sorted(dated, key=lambda one: one.since))


def _read_territories(country: str, fields: Fields) -> tuple[Territory, ...]:
    found = []
    for index, item in enumerate(fields.items("parts")):
        below = Fields(item, fields.at(f"parts[{index}]"), fields.faults)
        codes = below.items("postal_codes")
        if not codes or not all(isinstance(code, str) and _POSTAL_CODES.fullmatch(code) for code in codes):
            below.fault("postal_codes", "invalid_text", 'expected beginnings or ranges, such as ["35", "51001-51005"]')
        texts = tuple(str(code) for code in codes)
        found.append(Territory(below.text("name"), country, below.text("place", default=""), texts))
        below.finish()
    return tuple(found)
