"""What is decided of a line's tax: category, rate, place and why. The words are those of EN 16931."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from core.errors import must_hold

HUNDRED = Decimal(100)


class TaxCategory(Enum):
    """VAT categories of EN 16931 (UNTDID 5305, a part of it); other taxes are described by the same ones."""

    STANDARD = "S"
    ZERO = "Z"
    EXEMPT = "E"
    REVERSE_CHARGE = "AE"
    # Goods only; here because documents of others name them and an external tax service may.
    INTRA_COMMUNITY = "K"
    EXPORT = "G"
    OUTSIDE = "O"


class TaxBehavior(Enum):
    """Whether tax comes on top of an amount or is within it."""

    EXCLUSIVE = "exclusive"
    INCLUSIVE = "inclusive"


@dataclass(frozen=True, slots=True)
class TaxTreatment:
    """How a supply is taxed. `rate` is in percent (19, 9.975), zero in every category but S.

    `place` is where it is taxed: a country, or a country and its part (`DE`, `US-CA`, `PT-20`), "" for nowhere. `kind`
    is the tax's name for programs: `vat`, `sales_tax`, or "" where there is none. `reason_code` is one of the VATEX
    list, `note_code` a word for programs that says why nothing is charged, `note` the same as a sentence in English.
    """

    category: TaxCategory
    rate: Decimal = Decimal(0)
    place: str = ""
    kind: str = ""
    reason_code: str = ""
    note_code: str = ""
    note: str = ""
    behavior: TaxBehavior = TaxBehavior.EXCLUSIVE
    # What lines must share to be taxed together; made once, for a document asks each of its lines several times.
    group: GroupKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        must_hold(0 <= self.rate < HUNDRED, f"a tax rate of {self.rate} percent")
        must_hold(self.rate == 0 or self.category is TaxCategory.STANDARD, "only category S has a rate")
        object.__setattr__(self, "group", GroupKey(self.category, self.rate, self.place))

    def as_document(self) -> dict[str, str]:
        """Return it as JSON; the rate is a string without trailing zeros."""
        return {
            "category": self.category.value,
            "rate": rate_text(self.rate),
            "place": self.place,
            "kind": self.kind,
            "reason_code": self.reason_code,
            "note_code": self.note_code,
            "note": self.note,
            "behavior": self.behavior.value,
        }


@dataclass(frozen=True, slots=True)
class GroupKey:
    """Lines with the same category, rate and place are taxed together."""

    category: TaxCategory
    rate: Decimal
    place: str

    @property
    def sort_key(self) -> tuple[Decimal, str, str]:
        """The highest rate first, then by place and category."""
        return (-self.rate, self.place, self.category.value)


# What was billed before there was tax: the document said 0 and gave no reason.
UNTAXED = TaxTreatment(TaxCategory.OUTSIDE)


def read_treatment(document: Mapping[str, Any]) -> TaxTreatment:
    """Return the treatment of `TaxTreatment.as_document`; what is absent has its default."""
    return TaxTreatment(
        category=TaxCategory(document["category"]),
        rate=Decimal(document["rate"]),
        place=document["place"],
        kind=document.get("kind") or "",
        reason_code=document.get("reason_code") or "",
        note_code=document.get("note_code") or "",
        note=document.get("note") or "",
        behavior=TaxBehavior(document["behavior"]),
    )


def rate_text(rate: Decimal) -> str:
    """Return a rate without trailing zeros: `19`, `9.975`, `0`."""
    text = f"{rate:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
