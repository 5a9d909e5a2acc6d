"""A tax service over HTTP: asked how lines are taxed, never how much. Off unless a URL is set.

The exchange is ours, small enough for an adapter in front of any provider: `POST /treatments` with `currency`, `party`
and `lines` (`reference`, `amount`, `on`), answered by `lines` of `reference`, `category`, `rate`, `place`, `kind`,
`reason_code`, `note_code`, `note`; a refusal is status 422 with `code` and `reason`. docs/tax.md shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import httpx2

from core.errors import BrokenInvariantError, Fault, InvalidInputError, UnavailableError
from invoicing.domain.tax.treatment import TaxCategory, TaxTreatment
from invoicing.tax_ports import TaxParty, TaxQuestion
from rating.domain.fields import parse_amount

_TIMEOUT_SECONDS = 10
_TEXT_MAX = 300


class HttpTaxService:
    """`TaxService` over HTTP, with a bearer token if there is one."""

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx2.Timeout(timeout_seconds, connect=min(3, timeout_seconds))
        self._client = httpx2.AsyncClient(timeout=timeout, follow_redirects=False, headers=headers)

    async def treatments(self, party: TaxParty, questions: Sequence[TaxQuestion], currency: str) -> list[TaxTreatment]:
        """Return a treatment per question, in order.

        Raises `UnavailableError`, `InvalidInputError` where the service refuses, and for an answer that does not fit.
        """
        asked = {
            "currency": currency,
            "party": asdict(party),
            "lines": [
                {"reference": one.reference, "amount": f"{one.amount:f}", "on": one.on.isoformat()} for one in questions
            ],
        }
        try:
            response = await self._client.post(f"{self._url}/treatments", json=asked)
            document = response.json()
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise UnavailableError(f"the tax service does not answer: {type(error).__name__}") from error
        if response.status_code == 422 and isinstance(document, dict):
            code, reason = str(document.get("code", "refused"))[:60], str(document.get("reason", ""))[:_TEXT_MAX]
            raise InvalidInputError([Fault(code, f"the tax service says: {reason}", "tenant")])
        if response.status_code != 200:
            raise UnavailableError(f"the tax service answers {response.status_code}")
        return _read(document, questions)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _read(document: Any, questions: Sequence[TaxQuestion]) -> list[TaxTreatment]:
    lines = document.get("lines") if isinstance(document, dict) else None
    by_reference = {str(line.get("reference")): line for line in lines or [] if isinstance(line, dict)}
    if lines is None or len(by_reference) != len(lines) or by_reference.keys() != {one.reference for one in questions}:
        raise _unfit("expected one line for each that was asked about")
    return [_treatment(by_reference[one.reference]) for one in questions]


def _treatment(line: dict[str, Any]) -> TaxTreatment:
    rate = parse_amount(line.get("rate"))
    if isinstance(rate, Fault):
        raise _unfit(f"rate: {rate.reason}")
    texts = {name: line.get(name, "") for name in ("place", "kind", "reason_code", "note_code", "note")}
    if not all(isinstance(text, str) and len(text) <= _TEXT_MAX for text in texts.values()):
        raise _unfit("expected texts of a reasonable length")
    try:
        return TaxTreatment(TaxCategory(line.get("category")), Decimal(rate), **texts)
    except (ValueError, BrokenInvariantError) as error:
        raise _unfit(str(error)) from None


def _unfit(reason: str) -> InvalidInputError:
    return InvalidInputError([Fault("unfit_answer", f"the tax service's answer: {reason}", "tax_service")])
