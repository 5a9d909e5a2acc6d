"""Stripe's parameters: form bodies with nested keys, their checks, metadata, paging."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from tests.standins.stripe_errors import invalid, missing

Params = dict[str, Any]

_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_PART = re.compile(r"\[([^\[\]]*)\]")

# API reference, "Metadata": up to 50 keys, names up to 40 characters, values up to 500.
METADATA_KEYS_MAX = 50
FIELDS_MAX = 2_000
METADATA_NAME_MAX = 40
METADATA_VALUE_MAX = 500

# Parameters whose value may be an object or a list; each is checked where it is read.
_NESTED = frozenset({
    "address", "automatic_payment_methods", "billing_details", "card", "created", "expand", "invoice_settings",
    "lookup_keys", "metadata", "payment_method_types", "preferred_locales", "recurring", "types",
})  # fmt: skip

PAGING = frozenset({"limit", "starting_after", "ending_before"})


def decode_form(text: str) -> Params:
    """Decode `a[b][0]=c` into nested dicts and lists; metadata stays a dict even if its names are numbers."""
    result: Params = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise invalid(f"Invalid request: more than {FIELDS_MAX} parameters") from error
    for raw_key, value in pairs:
        match = _KEY.match(raw_key)
        if match is None:
            raise invalid(f"Invalid request: malformed parameter name {raw_key!r}")
        _put(result, [match.group(1), *_PART.findall(match.group(2))], value, raw_key)
    return {key: value if key == "metadata" else _lists(value) for key, value in result.items()}


def _put(target: Params, path: list[str], value: str, raw_key: str) -> None:
    for part in path[:-1]:
        child = target.setdefault(part, {})
        if not isinstance(child, dict):
            raise invalid(f"Invalid request: {raw_key!r} is both a value and an object", param=path[0])
        target = child
    last = path[-1] or str(len(target))
    if isinstance(target.get(last), dict):
        raise invalid(f"Invalid request: {raw_key!r} is both a value and an object", param=path[0])
    target[last] = value


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isascii() and key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(item) for key, item in value.items()}


def check_known(params: Params, known: Iterable[str]) -> None:
    """Refuse a parameter this endpoint does not have (page "Error codes", parameter_unknown).

    Real Stripe has more parameters than the stand-in. One that it cannot act out is refused loudly, never ignored.
    """
    unknown = sorted(set(params) - {*known, "expand"})
    if unknown:
        raise invalid(f"Received unknown parameter: {unknown[0]}", param=unknown[0], code="parameter_unknown")
    for name, value in params.items():
        if not isinstance(value, str) and name not in _NESTED:
            raise invalid(f"Invalid string: {value}", param=name)


def require(params: Params, name: str) -> Any:
    """Return a required parameter (page "Error codes", parameter_missing and parameter_invalid_empty)."""
    value = params.get(name)
    if value is None:
        raise invalid(f"Missing required param: {name}.", param=name, code="parameter_missing")
    if value == "":
        raise invalid(f"You passed an empty string for '{name}'.", param=name, code="parameter_invalid_empty")
    return value


def read_flag(params: Params, name: str) -> bool:
    """Read `true` or `false`; absent is false."""
    value = params.get(name, "false")
    if value not in ("true", "false"):
        raise invalid(f"Invalid boolean: {value}", param=name)
    return bool(value == "true")


def read_integer(value: Any, name: str) -> int:
    """Read an integer (page "Error codes", parameter_invalid_integer)."""
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise invalid(f"Invalid integer: {value}", param=name, code="parameter_invalid_integer")
    return int(value)


def merge_metadata(present: dict[str, str], params: Params) -> dict[str, str]:
    """Lay new metadata over the present; an empty value removes the name (API reference, "Metadata")."""
    given = params.get("metadata")
    if given is None:
        return dict(present)
    if given == "":
        return {}
    if not isinstance(given, dict):
        raise invalid("Invalid hash", param="metadata")
    merged = dict(present)
    for name, value in given.items():
        if not isinstance(value, str):
            raise invalid("Metadata values must be strings", param=f"metadata[{name}]")
        if len(name) > METADATA_NAME_MAX or len(value) > METADATA_VALUE_MAX:
            raise invalid("Metadata name or value too long", param=f"metadata[{name}]")
        if value == "":
            merged.pop(name, None)
        else:
            merged[name] = value
    if len(merged) > METADATA_KEYS_MAX:
        raise invalid(f"Metadata can have up to {METADATA_KEYS_MAX} keys", param="metadata")
    return merged


def created_matches(item: Params, condition: Any) -> bool:
    """Tell whether `created` suits the filter: a timestamp, or gt, gte, lt, lte (every list endpoint's reference)."""
    if condition is None:
        return True
    created = int(item["created"])
    if not isinstance(condition, dict):
        return created == read_integer(condition, "created")
    for name, raw in condition.items():
        bound = read_integer(raw, f"created[{name}]")
        holds = {"gt": created > bound, "gte": created >= bound, "lt": created < bound, "lte": created <= bound}
        if name not in holds:
            raise invalid(f"Received unknown parameter: created[{name}]", param=f"created[{name}]")
        if not holds[name]:
            return False
    return True


def page(items: Iterable[Params], params: Params, url: str) -> Params:
    """Cut one page, newest first (API reference, "Pagination": limit 1 to 100, default 10, cursors by id)."""
    newest_first = list(items)[::-1]
    limit = read_integer(params.get("limit", "10"), "limit")
    if not 1 <= limit <= 100:
        raise invalid("Limit must be between 1 and 100", param="limit")
    ids = [item["id"] for item in newest_first]
    if after := params.get("starting_after"):
        if after not in ids:
            raise missing("object", after, "starting_after", in_path=False)
        rest = newest_first[ids.index(after) + 1 :]
        return _list(rest[:limit], len(rest) > limit, url)
    if before := params.get("ending_before"):
        if before not in ids:
            raise missing("object", before, "ending_before", in_path=False)
        rest = newest_first[: ids.index(before)]
        return _list(rest[-limit:], len(rest) > limit, url)
    return _list(newest_first[:limit], len(newest_first) > limit, url)


def _list(data: list[Params], has_more: bool, url: str) -> Params:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}
