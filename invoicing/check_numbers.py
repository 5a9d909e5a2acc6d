"""Proves that numbers have no gap and no double: every number a series gave out stands on one document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from invoicing.domain.invoice import format_number

_SHOWN = 10


class NumberRegister(Protocol):
    """Where numbers lie."""

    async def numbers(self) -> tuple[Mapping[str, int], list[str]]:
        """Return what every series gives out next, and every document's number, as of one instant."""
        ...


@dataclass(frozen=True, slots=True)
class NumbersChecked:
    """How many numbers each series has given out, and what is wrong, in words."""

    given_out: Mapping[str, int]
    faults: tuple[str, ...]


async def check_numbers(register: NumberRegister) -> NumbersChecked:
    """Return what is found; no faults where all is well."""
    following, numbers = await register.numbers()
    return find_gaps(following, numbers)


def find_gaps(following: Mapping[str, int], numbers: Iterable[str]) -> NumbersChecked:
    """Compare what series gave out (`following` is the next number of each) with the numbers on documents."""
    seen = Counter(numbers)
    faults = [f"{number} stands on {count} documents" for number, count in sorted(seen.items()) if count > 1]
    for series, next_number in sorted(following.items()):
        expected = [format_number(series, number) for number in range(1, next_number)]
        gaps = [number for number in expected if number not in seen]
        faults += [f"{number} was given out and stands on no document" for number in gaps[:_SHOWN]]
        if len(gaps) > _SHOWN:
            faults.append(f"{series}: {len(gaps) - _SHOWN} more stand on no document")
        for number in expected:
            seen.pop(number, None)
    faults += [f"{number} was given out by no series" for number in sorted(seen)]
    return NumbersChecked({series: number - 1 for series, number in sorted(following.items())}, tuple(faults))
