"""Imports a foreign table of prices as a price book: a catalogue file like any other."""

from __future__ import annotations

import hashlib
from enum import Enum

from catalogues.load_catalogue import CatalogueFile, load_catalogue
from catalogues.price_books.read_genai_prices import read_genai_prices
from catalogues.price_books.read_json import read_json, unpack
from catalogues.price_books.read_litellm import read_litellm
from catalogues.price_books.sheet import EVERYTHING, Selection, by_model_only
from catalogues.price_books.write_book import Book, write_book
from core.errors import BrokenInvariantError, Fault, InvalidInputError
from core.read_yaml import MAX_BYTES


class PriceFormat(Enum):
    """Whose table it is."""

    LITELLM = "litellm"
    GENAI_PRICES = "genai-prices"


_READERS = {PriceFormat.LITELLM: read_litellm, PriceFormat.GENAI_PRICES: read_genai_prices}


def import_price_book(
    content: bytes,
    price_format: PriceFormat,
    selection: Selection = EVERYTHING,
    *,
    plan_id: str = "llm_prices",
    file: str = "prices",
    by_model: bool = False,
) -> Book:
    """Return the table's prices as a catalogue with one plan, `plan_id`; the same table gives the same bytes.

    `file` is the table's name for people. With `by_model` prices that depend on a request's length or service tier are
    left out, so that meters are split by model alone. Raises `InvalidInputError` with every fault of the table and its
    path, and `too_large`, `nothing_selected` for a choice of models that makes no book.
    """
    text = unpack(content, file)
    document = read_json(text, file)
    try:
        sheet = _READERS[price_format](document, selection)
    except InvalidInputError as refused:
        raise InvalidInputError(
            [Fault(one.code, one.reason, f"{file}: {one.path}") for one in refused.faults]
        ) from None
    if not sheet.models:
        raise InvalidInputError([Fault("nothing_selected", "no model with a price that could be imported", file)])
    if by_model:
        sheet = by_model_only(sheet)
    source = f"{price_format.value}, sha256 {hashlib.sha256(text).hexdigest()}"
    book = write_book(sheet, plan_id=plan_id, name=f"LLM prices ({price_format.value})", source=source)
    if len(book.content) > MAX_BYTES:
        reason = f"a book of {len(sheet.models)} models is larger than a catalogue may be: choose some of them"
        raise InvalidInputError([Fault("too_large", reason, file)])
    _check(book, plan_id)
    return book


def _check(book: Book, plan_id: str) -> None:
    """What is written must be read: a book that our own catalogue refuses is our mistake."""
    try:
        load_catalogue([CatalogueFile(f"{plan_id}.yaml", book.content)])
    except InvalidInputError as refused:
        shown = "; ".join(str(fault) for fault in refused.faults[:3])
        raise BrokenInvariantError(f"an imported price book is refused: {shown}") from refused
