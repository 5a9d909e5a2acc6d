"""Immutable values that are made by the hundred thousand.

A frozen dataclass is made nine times slower than another (measured, Python 3.11: each field goes through
`object.__setattr__`), and rating does little else than make them. Here the type checker forbids changes, as it does for
frozen ones, and nothing at run time does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value_object(cls: type[T]) -> type[T]:
    """Make the class a dataclass with slots, equal and hashable by its fields."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
