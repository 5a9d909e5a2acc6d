"""Fast JSON is JSON: what Python's own reads is what was written, and what JSON does not know is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BrokenInvariantError
from core.plain_json import write_plain_json

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Kind(StrEnum):
    USAGE = "usage"


@given(DOCUMENTS)
def test_what_is_written_is_read_again(document: Any) -> None:
    assert json.loads(write_plain_json(document)) == document


@pytest.mark.parametrize(
    "stranger",
    [Decimal("1.50"), datetime(2026, 10, 1, tzinfo=UTC), UUID(int=1), Kind.USAGE, object()],
    ids=lambda one: type(one).__name__,
)
def test_other_types_are_refused_wherever_they_stand(stranger: object) -> None:
    for document in (stranger, [1, stranger], {"a": {"b": [stranger]}}, {"a": (stranger,)}):
        with pytest.raises(BrokenInvariantError, match="no JSON"):
            write_plain_json(document)
