"""Turns a snapshot into the invoice's HTML. Owns how figures and dates look to people; the figures are the snapshot's.

Tenants' texts are data only: everything is escaped, an undefined name is an error, templates ship with the product.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

BASE_TEMPLATE = "invoice.html"
_SATURDAY = 5
_DAYS_SHOWN = 31
_CODE_BEFORE_DIGIT = re.compile(r"(?<=[A-Z])(?=\d)")


def templates_folder() -> Path:
    """Return the folder of the bundled templates and fonts."""
    return Path(str(resources.files("invoicing") / "templates"))


def document_html(snapshot: Mapping[str, Any]) -> str:
    """Return the HTML of the invoice: the template of its tier if there is one, else the base."""
    environment = Environment(
        loader=FileSystemLoader(templates_folder()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Snapshots from before tenants had time zones name none.
    zone = ZoneInfo(snapshot.get("time_zone", "UTC"))
    environment.filters.update(_filters(snapshot["locale"], snapshot["invoice"]["currency"], zone))
    try:
        template = environment.get_template(f"tiers/{snapshot['plan']['id']}.html")
    except TemplateNotFound:
        template = environment.get_template(BASE_TEMPLATE)
    return template.render(snapshot)


def _filters(locale: str, currency: str, zone: tzinfo) -> dict[str, Callable[..., Any]]:
    territories = Locale.parse(locale).territories

    def money(amount: str) -> str:
        # The amount is rounded already, a unit price must not be: no digit is dropped here.
        shown = format_currency(Decimal(amount), currency, locale=locale, decimal_quantization=False)
        # CLDR sets a space between a code and its digits ("KWD 1.234"), which Babel leaves out.
        return _CODE_BEFORE_DIGIT.sub("\N{NO-BREAK SPACE}", shown)

    def number(quantity: str | int) -> str:
        return format_decimal(Decimal(quantity), locale=locale, decimal_quantization=False)

    def day(instant: str) -> str:
        return format_date(_local_day(instant, zone), format="long", locale=locale)

    def span(period: Mapping[str, Any]) -> str:
        first, last = _local_day(period["start"], zone), _last_day(period["end"], zone)
        if (first.year, first.month) == (last.year, last.month):
            return f"{format_date(first, 'MMMM d', locale=locale)} – {format_date(last, 'd, y', locale=locale)}"
        return f"{format_date(first, 'long', locale=locale)} – {format_date(last, 'long', locale=locale)}"

    return {
        "money": money,
        "number": number,
        "day": day,
        "span": span,
        "period": lambda invoice: span({"start": invoice["period_start"], "end": invoice["period_end"]}),
        "country": lambda code: territories.get(code, code),
        "is_zero": lambda amount: Decimal(amount) == 0,
        "plural": _plural,
        "unit": lambda line: _unit_of(line["quantity"], line["unit"]),
        "by_day": lambda tables, invoice: _by_day(tables, invoice, locale, zone),
    }


def _local_day(instant: str, zone: tzinfo) -> date:
    return datetime.fromisoformat(instant).astimezone(zone).date()


def _last_day(end: str, zone: tzinfo) -> date:
    """Return the day that holds the last moment before a period's end."""
    return (datetime.fromisoformat(end) - timedelta(minutes=1)).astimezone(zone).date()


def _plural(unit: str) -> str:
    """Say several of a unit; abbreviations (GB, vCPU-hour's vCPU) stay as they are."""
    return unit if unit.isupper() else f"{unit}s"


def _unit_of(quantity: str, unit: str) -> str:
    return unit if Decimal(quantity) == 1 else _plural(unit)


def _by_day(
    tables: list[Mapping[str, Any]], invoice: Mapping[str, Any], locale: str, zone: tzinfo
) -> list[dict[str, Any]]:
    """Return one row per day of the period with each table's quantity, None where there was no usage.

    A longer period than a month, or usage of another one, gets rows only for days with usage.
    """
    by_table = [{row[0]: row[1] for row in table["days"]} for table in tables]
    first, last = _local_day(invoice["period_start"], zone), _last_day(invoice["period_end"], zone)
    used = {date.fromisoformat(day) for quantities in by_table for day in quantities}
    days = {first + timedelta(days=offset) for offset in range((last - first).days + 1)}
    shown = used | days if len(days) <= _DAYS_SHOWN else used
    rows = []
    for day in sorted(shown):
        key = day.isoformat()
        rows.append(
            {
                "label": format_date(day, "EEE, MMM d", locale=locale),
                "weekend": day.weekday() >= _SATURDAY,
                "quantities": [quantities.get(key) for quantities in by_table],
            }
        )
    return rows
