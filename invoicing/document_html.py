"""Turns a snapshot into the document's HTML. Owns which template it is and what the template sees.

Tenants' texts are data only: everything is escaped, an undefined name is an error, templates ship with the product.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import segno.helpers
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateNotFound

from invoicing.document_annex import usage_tables
from invoicing.document_words import Words, Writer, direction_of, load_words, locale_of
from invoicing.domain.document import Mark, is_credit_note, lines_of, open_snapshot
from invoicing.domain.payment_code import TransferOrder, transfer_order
from invoicing.domain.xml_text import clean_xml_text

BASE_TEMPLATE = "invoice.html"
# Breaks that are no markup and have no glyph.
_BREAKS = re.compile("[\x85\u2028\u2029]")
_BENEATH = ("discount", "maximum")
# Whose shapes of Han characters the buyer's country reads (classes of the stylesheet).
_HAN = {"CN": "CN", "SG": "CN", "TW": "TW", "HK": "HK", "MO": "HK", "JP": "JP", "KR": "KR"}


def templates_folder() -> Path:
    """Return the folder of the bundled templates and fonts."""
    return Path(str(resources.files("invoicing") / "templates"))


def document_html(snapshot: Mapping[str, Any], mark: Mark = "") -> str:
    """Return the page of a document as XHTML: the template of its tier if there is one, else the base.

    `mark` stamps it as a draft or as void. Raises `BrokenInvariantError` for an amount that is not rounded.
    """
    shown = open_snapshot(snapshot)
    words = load_words(shown["language"])
    country = shown["bill_to"]["country"]
    currency = shown["invoice"]["currency"]
    writer = Writer(words, locale_of(shown["language"], country), currency, ZoneInfo(shown["time_zone"]))
    order = transfer_order(shown, mark)
    seller = {**shown["seller"], **shown["seller"].get("translations", {}).get(shown["language"], {})}
    page = _template(str(shown["plan"]["id"])).render(
        {
            **shown,
            "seller": seller,
            "mark": mark,
            "t": words.text,
            "w": writer,
            "is_credit_note": is_credit_note(shown),
            "beneath": _BENEATH,
            "han": _HAN,
            "has_tax_column": len({_rate_shown(line) for line in lines_of(shown)} - {None}) > 1,
            "tax_rows": [_tax_row(tax, words, writer, seller["country"]) for tax in shown["taxes"]],
            "tax_notes": [note for note in dict.fromkeys(words.tax_note(tax) for tax in shown["taxes"]) if note],
            "code": None if order is None else _code(order),
            "usage_tables": usage_tables(shown["annex"]["tables"], shown["invoice"], writer),
            "group_name": lambda name: words.text(f"group_{name}") if words.has(f"group_{name}") else name,
        }
    )
    return _BREAKS.sub(" ", clean_xml_text(page))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(templates_folder()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["direction"] = direction_of
    environment.filters["is_zero"] = lambda amount: not amount.strip("-0.")
    return environment


@functools.lru_cache(maxsize=64)
def _template(plan_id: str) -> Template:
    try:
        return _environment().get_template(f"tiers/{plan_id}.html")
    except TemplateNotFound:
        return _environment().get_template(BASE_TEMPLATE)


def _rate_shown(line: Mapping[str, Any]) -> tuple[str, str] | None:
    category = line.get("tax_category")
    return (category, line["tax_rate"]) if category else None


def _tax_row(tax: Mapping[str, Any], words: Words, writer: Writer, seller_country: str) -> dict[str, str]:
    """Return a row of the tax table: its wording and its amount."""
    text, has = words.text, words.has
    category, place, kind = tax["category"], tax.get("place") or "", tax.get("kind") or ""
    key = f"tax_name_{category}"
    if category == "S" and kind == "sales_tax":
        key = "tax_name_sales"
    elif category == "S" and place.startswith("MX"):
        key = "tax_name_iva"
    name = text(key) if has(key) else category
    if place and category == "S" and (place != seller_country or kind == "sales_tax"):
        name = f"{name} {place}"
    if category == "S":
        label = text("tax_on", name=name, rate=writer.rate(tax["rate"]), base=writer.money(tax["base"]))
    else:
        label = text("tax_free", name=name, base=writer.money(tax["base"]))
    return {"label": label, "amount": tax["tax"]}


def _code(order: TransferOrder) -> str:
    """Return the code of a transfer as an inline image; the library checks what EPC069-12 allows."""
    code = segno.helpers.make_epc_qr(
        name=order.holder, iban=order.iban, amount=order.amount, reference=order.reference, encoding="utf-8"
    )
    # Pixels, four for each module: drawing the same as paths costs a sixteenth of a page.
    return str(code.png_data_uri(border=2, scale=4))
