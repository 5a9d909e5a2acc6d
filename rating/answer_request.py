"""Answers one request of `meterbook rate`: a document in, a document out. Refusals are answers too, never exceptions.

What comes out is documented in `docs/rating.md`; amounts and quantities are decimal strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from core.errors import InvalidInputError, must_hold
from core.json_lines import decode_line
from core.money import round_to_minor
from core.period import Period, format_instant
from rating.domain.adjust.discount import discount_of
from rating.domain.price import Dimensions, plain
from rating.domain.rate_request import RateRequest, read_request, read_request_id
from rating.line_commands import error_of
from rating.rate_charges import RatedLine, Rating
from rating.rate_slices import join_used, rate_list, rate_slices

_ZERO = Decimal(0)


def answer_line(line: bytes | None) -> dict[str, Any]:
    """Return the answer to one line of JSON; None stands for a line that was too long to be read."""
    request_id = None
    try:
        document = decode_line(line)
        request_id = read_request_id(document)
        request = read_request(document)
        ratings = list(
            rate_slices(request.charges, request.currency, [one.used for one in request.slices], request.extent)
        )
    except InvalidInputError as refused:
        return {"id": request_id, "error": error_of(refused.faults)}
    return {"id": request_id, **_answer(request, ratings)}


def _answer(request: RateRequest, ratings: Sequence[Rating]) -> dict[str, Any]:
    phased, whole = len(ratings) > 1, ratings[-1]
    if phased:
        used = join_used(piece.used for piece in request.slices)
        whole = rate_list(request.charges, request.currency, used, request.extent)
        billed = sum((rating.total for rating in ratings), _ZERO)
        must_hold(billed == whole.total, f"slices come to {billed}, the whole to {whole.total}")
    lines: list[dict[str, Any]] = []
    for number, (rating, piece) in enumerate(zip(ratings, request.slices, strict=True), 1):
        lines += _lines(rating, piece.period, number if phased else None)
    answer: dict[str, Any] = {
        "currency": request.currency,
        "total": _rounded(whole.total, request.currency),
        "exact_total": plain(whole.exact_total),
        "lines": lines,
    }
    if phased:
        answer["phases"] = [
            {
                "phase": number,
                "total": _rounded(rating.total, request.currency),
                "exact_total": plain(rating.exact_total),
                "period": _period(piece.period),
            }
            for number, (rating, piece) in enumerate(zip(ratings, request.slices, strict=True), 1)
        ]
    if whole.unpriced:
        answer["unpriced"] = [
            {"meter": row.meter_id or None, "dimensions": _named(row.dimensions), "quantity": plain(row.quantity)}
            for row in whole.unpriced
        ]
    return answer


def _lines(rating: Rating, period: Period | None, phase: int | None) -> list[dict[str, Any]]:
    discounts = {_key(line, line.part): line.amount for line in rating.lines if line.kind == "discount"}
    shown = []
    for line in rating.lines:
        discount = None if line.kind == "discount" else discounts.get(_key(line, discount_of(line.part)))
        shown.append(
            {
                "charge": line.charge_id,
                "part": line.part,
                "kind": line.kind,
                "description": line.description,
                "meter": line.meter_id or None,
                "dimensions": _named(line.dimensions),
                "tier": line.tier,
                "quantity": plain(line.quantity),
                "unit": line.unit,
                "unit_amount": None if line.unit_amount is None else plain(line.unit_amount),
                "per": line.per,
                "exact_amount": plain(line.exact_amount),
                "amount": f"{line.amount:f}",
                "discount": f"{abs(line.amount * 0) if discount is None else -discount:f}",
                "period": _period(period),
                **({} if phase is None else {"phase": phase}),
                "steps": list(line.steps),
            }
        )
    return shown


def _rounded(amount: Decimal, currency: str) -> str:
    """Write a sum of rounded amounts, with its decimal places even if there was nothing to add."""
    return f"{round_to_minor(amount, currency):f}"


def _key(line: RatedLine, part: str) -> tuple[str, str, Dimensions]:
    return line.charge_id, part, line.dimensions


def _named(dimensions: Dimensions) -> dict[str, str]:
    return dict(dimensions)


def _period(period: Period | None) -> dict[str, str] | None:
    return None if period is None else {"start": format_instant(period.start), "end": format_instant(period.end)}
