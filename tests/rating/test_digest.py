"""Canonical JSON is RFC 8785's, whichever of its two writers a document goes to."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from rating.domain.digest import canonical_json, digest_of

# Keys that are sorted one way by code point and another by UTF-16, and text with everything that is escaped.
NAMES = st.text(max_size=6) | st.sampled_from(["\U0001f600", "\uffe6", "é", "", "\x7f", "a\nb"])
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.characters(max_codepoint=0x9F)
    | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)


@given(DOCUMENTS)
def test_every_document_is_written_as_rfc_8785_says(document: Any) -> None:
    assert canonical_json(document) == rfc8785.dumps(document)


@given(st.dictionaries(st.characters(max_codepoint=0x7F), st.text(max_size=3), min_size=2))
def test_the_order_of_keys_does_not_matter(document: dict[str, str]) -> None:
    assert digest_of(document) == digest_of(dict(reversed(document.items())))


class Kind(StrEnum):
    USAGE = "usage"


@pytest.mark.parametrize("document", [{"kind": Kind.USAGE}, [Kind.USAGE], (1, "a"), {"a": ()}])
def test_types_of_our_own_are_written_by_their_value(document: Any) -> None:
    assert canonical_json(document) == rfc8785.dumps(document)


@pytest.mark.parametrize("document", [Decimal("1.5"), {"a": [Decimal(1)]}, {1: "a"}, 2**53, {"a": "\ud800"}, {None: 1}])
def test_what_rfc_8785_does_not_know_is_refused(document: Any) -> None:
    with pytest.raises(rfc8785.CanonicalizationError):
        canonical_json(document)
