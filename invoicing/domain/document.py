"""What a document shows, from a snapshot of any format. Owns defaults of older formats and the sign of credit notes.

A snapshot never changes, so what it lacks is filled in here: format 2 knew neither tax nor languages. Books are signed
(a credit note lowers), documents are not: a credit note's amounts are shown positive (EN 16931, type 381).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from core.errors import must_hold

LANGUAGES = ("en", "es", "pt", "de")
FALLBACK_LANGUAGE = "en"
INVOICE, CREDIT_NOTE = "invoice", "credit_note"
# As what a document is handed out: for people, and as an e-invoice in both syntaxes of EN 16931.
PDF_TYPE, CII_TYPE, UBL_TYPE = "application/pdf", "application/xml;syntax=cii", "application/xml;syntax=ubl"
# The copy of a void invoice that says so.
VOID_PDF_TYPE = "application/pdf;mark=void"
# What is stamped across a document: nothing, or that it asks for no money.
Mark = Literal["", "draft", "void"]
_KNOWN_FORMATS = (2, 3)
_SIGNED = ("subtotal", "tax", "total")


def open_snapshot(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Return a snapshot as format 3 with every optional part present; raises `BrokenInvariantError` for others.

    `kind`, `language`, `corrects` (numbers with their dates as far as known), `taxes`, `credits_applied`,
    `amount_credited`, `amount_due` and `transfer` are always there.
    """
    must_hold(snapshot["format"] in _KNOWN_FORMATS, f"a snapshot of format {snapshot['format']}")
    invoice = snapshot["invoice"]
    total = snapshot["total"]
    # The first snapshots were from before there were credits.
    due = snapshot.get("amount_due", total)
    shown: dict[str, Any] = {
        "time_zone": "UTC",
        "credits_applied": "0",
        "amount_credited": "0",
        "exchange_rate": None,
        "tax_behavior": "exclusive",
        "reason": "",
        **snapshot,
        "seller": {"logo": "", "vat_number": "", **snapshot["seller"]},
        "bill_to": {"vat_number": "", **snapshot["bill_to"]},
        "transfer": _transfer(snapshot),
        "amount_due": due,
        "kind": snapshot.get("kind") or invoice.get("kind") or INVOICE,
        "language": language_of(snapshot),
        "corrects": _corrects(snapshot),
        "taxes": list(snapshot.get("taxes") or ()),
    }
    return _positive(shown) if shown["kind"] == CREDIT_NOTE and Decimal(total) < 0 else shown


def language_of(snapshot: Mapping[str, Any]) -> str:
    """Return the language of a document; English where the tenant's is none of ours."""
    language = str(snapshot.get("language") or snapshot.get("locale") or "")[:2].lower()
    return language if language in LANGUAGES else FALLBACK_LANGUAGE


def is_credit_note(shown: Mapping[str, Any]) -> bool:
    """Tell whether an opened snapshot is a credit note's."""
    return bool(shown["kind"] == CREDIT_NOTE)


def lines_of(shown: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all lines in the order in which the document shows them."""
    return [line for group in shown["groups"] for line in group["lines"]]


def _transfer(snapshot: Mapping[str, Any]) -> dict[str, Any] | None:
    transfer = snapshot.get("transfer")
    empty = dict.fromkeys(("iban", "bic", "account_number", "routing"), "")
    return transfer and {**transfer, "accounts": [{**empty, **account} for account in transfer["accounts"]]}


def _corrects(snapshot: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = snapshot.get("corrects", snapshot["invoice"].get("corrects")) or []
    return [{"number": one, "issued_at": None} if isinstance(one, str) else dict(one) for one in found]


def _positive(shown: dict[str, Any]) -> dict[str, Any]:
    rate = shown["exchange_rate"]
    return {
        **shown,
        **{name: _negated(shown[name]) for name in _SIGNED},
        "exchange_rate": rate and {**rate, "tax": _negated(rate["tax"])},
        "taxes": [{**tax, "base": _negated(tax["base"]), "tax": _negated(tax["tax"])} for tax in shown["taxes"]],
        "groups": [{**group, "lines": [_positive_line(line) for line in group["lines"]]} for group in shown["groups"]],
    }


def _positive_line(line: Mapping[str, Any]) -> dict[str, Any]:
    signed = [name for name in ("amount", "net", "quantity", "tax_amount") if line.get(name)]
    return {**line, **{name: _negated(line[name]) for name in signed}}


def _negated(amount: str) -> str:
    """Turn a decimal string's sign; its digits stay as they are."""
    if amount.startswith("-"):
        return amount[1:]
    return f"-{amount}" if Decimal(amount) else amount
