"""VIES, the member states' registers of VAT numbers, by the Commission's REST interface.

Source: the contract "VIES on-the-Web Endpoint" (POST /check-vat-number) and VIES' pages "FAQ" and "Technical
information". An error comes as `actionSucceed: false` with `errorWrappers`, with status 200 as well as with 400 and
500. Only an answer that says `valid` is one; everything else means that nobody knows yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx2

from core.errors import Fault, InvalidInputError, UnavailableError
from core.tax_places import read_vat_number
from invoicing.tax_ports import VatAnswer

DEFAULT_URL = "https://ec.europa.eu/taxation_customs/vies/rest-api"
_TIMEOUT_SECONDS = 20
# What the question itself is blamed for; asking again would say the same.
_REFUSALS = {
    "INVALID_INPUT": ("vat_number", "VIES does not take the number as one of its country"),
    "INVALID_REQUESTER_INFO": ("requester", "VIES does not take the seller's own VAT number"),
}
# How a register says that it does not tell.
_UNTOLD = frozenset({"---", "N/A"})
_TEXT_MAX = 400


class Vies:
    """`VatRegister` over HTTP."""

    def __init__(self, url: str = DEFAULT_URL, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/")
        timeout = httpx2.Timeout(timeout_seconds, connect=min(5, timeout_seconds))
        self._client = httpx2.AsyncClient(timeout=timeout, follow_redirects=False)

    async def check(self, vat_number: str, requester: str, now: datetime) -> VatAnswer:
        """Return whether a number is in use now.

        With the `requester`'s own VAT number the answer has a consultation number. Raises `UnavailableError` where VIES
        or the member state does not answer, `InvalidInputError` (`refused_by_vies`) where it refuses the question.
        """
        asked = {"countryCode": vat_number[:2], "vatNumber": vat_number[2:]}
        if requester:
            asked |= {"requesterMemberStateCode": requester[:2], "requesterNumber": requester[2:]}
        try:
            response = await self._client.post(f"{self._url}/check-vat-number", json=asked)
            document = response.json()
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise UnavailableError(f"VIES does not answer: {type(error).__name__}") from error
        if not isinstance(document, dict) or not isinstance(document.get("valid"), bool):
            raise _as_error(document, response.status_code)
        if response.status_code != 200 or document.get("actionSucceed") is False:
            raise _as_error(document, response.status_code)
        if (document.get("countryCode"), _compact(document.get("vatNumber"))) != (vat_number[:2], vat_number[2:]):
            raise UnavailableError("VIES answered about another number")
        return VatAnswer(
            vat_number=vat_number,
            valid=document["valid"],
            checked_at=now,
            consultation=_told(document.get("requestIdentifier")),
            requester=requester,
            name=_told(document.get("name")),
            address=_told(document.get("address")),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _as_error(document: Any, status: int) -> UnavailableError | InvalidInputError:
    wrappers = document.get("errorWrappers") if isinstance(document, dict) else None
    codes = [str(one.get("error", ""))[:60] for one in wrappers or [] if isinstance(one, dict)]
    for code in codes:
        if code in _REFUSALS:
            path, reason = _REFUSALS[code]
            return InvalidInputError([Fault("refused_by_vies", f"{reason} ({code})", path)])
    return UnavailableError(f"VIES cannot say now: {', '.join(codes) or f'status {status}'}")


def _compact(value: Any) -> str:
    return "".join(char for char in str(value or "").upper() if char.isalnum())


def _told(value: Any) -> str:
    text = " ".join(str(value or "").split())[:_TEXT_MAX]
    return "" if text in _UNTOLD else text


def requester_of(vat_number: str, country: str) -> str:
    """Return the seller's number as VIES takes it from whoever asks: with letters of the Union, else ""."""
    found = read_vat_number(vat_number, country) if vat_number else ""
    return found if isinstance(found, str) and len(found) > 2 and found[:2].isalpha() else ""
