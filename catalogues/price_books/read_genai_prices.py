"""Reads genai-prices' table (`prices/data.json` of pydantic/genai-prices) into a price sheet.

Prices are per million tokens (`…_mtok`) or per thousand (`…_kcount`). `{base, tiers}` is a cliff: a request with more
input tokens than a tier's `start` has that tier's price for all its tokens. Of several prices with constraints the last
whose constraint holds counts. Source: that project's `types.py` and `units.yml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, time
from decimal import Decimal
from typing import Any

from catalogues.price_books.kinds import CACHE_WRITE, CACHED, INPUT, OUTPUT, REASONING, WEB_SEARCHES
from catalogues.price_books.match_names import Matches, has_patterns, literal_names, read_rule
from catalogues.price_books.read_json import fits, read_amount
from catalogues.price_books.sheet import (
    ALWAYS,
    CONTEXT,
    Condition,
    Daily,
    ModelPrices,
    Prices,
    PriceSheet,
    Selection,
    Since,
    TimedPrices,
    Unexpressed,
    check_selection,
    is_name,
    sheet_of,
)
from core.errors import Fault, InvalidInputError

_KINDS = {
    "input_mtok": INPUT,
    "cache_read_mtok": CACHED,
    "cache_write_mtok": CACHE_WRITE,
    "cache_write_1h_mtok": "llm_cache_write_1h_tokens",
    "input_audio_mtok": "llm_input_audio_tokens",
    "cache_audio_read_mtok": "llm_cached_input_audio_tokens",
    "input_image_mtok": "llm_input_image_tokens",
    "cache_image_read_mtok": "llm_cached_input_image_tokens",
    "input_video_mtok": "llm_input_video_tokens",
    "output_mtok": OUTPUT,
    "output_reasoning_mtok": REASONING,
    "output_audio_mtok": "llm_output_audio_tokens",
    "output_image_mtok": "llm_output_image_tokens",
    "output_video_mtok": "llm_output_video_tokens",
    "web_searches_kcount": WEB_SEARCHES,
}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_HOUR = re.compile(r"\d{2}:\d{2}:\d{2}Z", re.ASCII)


def read_genai_prices(document: Any, selection: Selection) -> PriceSheet:
    """Return the selected models' prices.

    Without names, models go by their own ids and by the names their rules list; patterns are reported. Raises
    `InvalidInputError` with every fault and its path, and `unknown_provider`, `unknown_model` for what is not there.
    """
    reader = _Reader()
    providers = reader.providers(document)
    faults = reader.faults
    check_selection(selection, faults)
    for name in selection.providers:
        if name not in [provider_id for provider_id, _ in providers]:
            known = ", ".join(provider_id for provider_id, _ in providers)
            faults.append(Fault("unknown_provider", f"no provider {name!r}; there are: {known}", "providers"))
    found = [
        entry
        for name, entries in providers
        if not selection.providers or name in selection.providers
        for entry in entries
    ]
    models = reader.named(found, selection.models) if selection.models else reader.all_of(found)
    if faults:
        raise InvalidInputError(faults)
    return sheet_of(models, reader.unexpressed)


class _Entry:
    """One model of the table: its place, its provider, the names it goes by."""

    def __init__(self, path: str, provider: str, document: dict[str, Any], matches: Matches) -> None:
        self.path, self.provider, self.document, self.matches = path, provider, document, matches
        self.model_id = str(document["id"])


class _Reader:
    """Walks the table and collects faults and what cannot be expressed."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.unexpressed: list[Unexpressed] = []

    def providers(self, document: Any) -> list[tuple[str, list[_Entry]]]:
        """Return the providers in the table's order, each with its models."""
        listed = document.get("providers") if isinstance(document, dict) else document
        found: list[tuple[str, list[_Entry]]] = []
        for index, provider in enumerate(self._list(listed, "providers")):
            path = f"providers[{index}]"
            name = self._text(provider, "id", path)
            models = self._list(provider.get("models") if isinstance(provider, dict) else None, f"{path}.models")
            entries = [self._entry(model, f"{path}.models[{at}]", name) for at, model in enumerate(models)]
            found.append((name, [entry for entry in entries if entry is not None]))
        return found

    def named(self, entries: Iterable[_Entry], names: Iterable[str]) -> list[ModelPrices]:
        """Return prices under the names given: of each provider's first model whose rule takes the name."""
        entries = list(entries)
        models = []
        for name in dict.fromkeys(names):
            first: dict[str, _Entry] = {}
            for entry in entries:
                if entry.provider not in first and entry.matches(name):
                    first[entry.provider] = entry
            if not first:
                self.faults.append(Fault("unknown_model", f"no model goes by the name {name[:200]!r}", "models"))
            models += [self._model(entry, name) for entry in first.values()]
        return [model for model in models if model is not None]

    def all_of(self, entries: Iterable[_Entry]) -> list[ModelPrices]:
        """Return prices under each model's id and the names its rule lists; patterns are reported."""
        models: list[ModelPrices | None] = []
        entries = list(entries)
        ids = {(entry.provider, entry.model_id) for entry in entries}
        for entry in entries:
            rule = entry.document.get("match")
            # A name that another model of the provider has as its id belongs to that one.
            others = [name for name in literal_names(rule) if is_name(name) and (entry.provider, name) not in ids]
            models += [self._model(entry, name) for name in dict.fromkeys([entry.model_id, *others])]
            if has_patterns(rule):
                reason = f"{entry.model_id} also goes by names its rule does not list: name them with --model"
                self.unexpressed.append(Unexpressed(f"{entry.path}.match", "name_pattern", reason))
        return [model for model in models if model is not None]

    def _entry(self, model: Any, path: str, provider: str) -> _Entry | None:
        if not self._text(model, "id", path):
            return None
        return _Entry(path, provider, model, read_rule(model.get("match"), f"{path}.match", self.faults))

    def _model(self, entry: _Entry, name: str) -> ModelPrices | None:
        path = f"{entry.path}.prices"
        prices = entry.document.get("prices")
        found_before = len(self.faults), len(self.unexpressed)
        if isinstance(prices, list):
            timed = [self._timed(one, f"{path}[{index}]") for index, one in enumerate(prices)]
        else:
            timed = [TimedPrices(None, self._prices(prices, path))]
        if len(self.faults) > found_before[0]:
            return None
        if any(one is None for one in timed):
            # Without one of its prices another would stand in, which is worse than none.
            return None
        return ModelPrices(name, tuple(one for one in timed if one is not None), entry.path)

    def _timed(self, document: Any, path: str) -> TimedPrices | None:
        if not isinstance(document, dict):
            self.faults.append(Fault("invalid_type", "expected a mapping with prices", path))
            return None
        prices = self._prices(document.get("prices"), f"{path}.prices")
        constraint = document.get("constraint")
        if constraint is None:
            return TimedPrices(None, prices)
        when = _read_constraint(constraint)
        if when is None:
            reason = f"a constraint this importer does not know: {repr(constraint)[:100]}"
            self.unexpressed.append(Unexpressed(f"{path}.constraint", "unknown_constraint", reason))
            return None
        return TimedPrices(when, prices)

    def _prices(self, document: Any, path: str) -> Prices:
        if not isinstance(document, dict):
            self.faults.append(Fault("invalid_type", "expected a mapping of prices", path))
            return {}
        found: dict[str, dict[Condition, Decimal]] = {}
        for key, value in document.items():
            at = f"{path}.{key}"
            if value is None:
                continue
            if key not in _KINDS:
                reason = "a price of something this importer has no meter for"
                self.unexpressed.append(Unexpressed(at, "unknown_price", reason))
                continue
            found[_KINDS[key]] = self._tiers(value, at)
        return found

    def _tiers(self, value: Any, path: str) -> dict[Condition, Decimal]:
        if not isinstance(value, dict):
            amount = self._amount(value, path)
            return {ALWAYS: amount}
        found = {ALWAYS: self._amount(value.get("base"), f"{path}.base")}
        for index, tier in enumerate(self._list(value.get("tiers"), f"{path}.tiers")):
            at = f"{path}.tiers[{index}]"
            start = tier.get("start") if isinstance(tier, dict) else None
            if type(start) is not int or start < 0:
                self.faults.append(
                    Fault("invalid_tier", f"expected a whole number, got {repr(start)[:60]}", f"{at}.start")
                )
                continue
            condition = ((CONTEXT, f"above_{start}"),)
            if condition in found:
                self.faults.append(Fault("invalid_tier", f"two tiers start at {start}", f"{at}.start"))
            found[condition] = self._amount(tier.get("price"), f"{at}.price")
        return found

    def _amount(self, value: Any, path: str) -> Decimal:
        amount = read_amount(value, path, self.faults)
        if amount is not None and not fits(amount):
            self.faults.append(Fault("too_many_digits", f"{amount:f} has more digits than a price can hold", path))
        return amount or Decimal(0)

    def _list(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            self.faults.append(Fault("invalid_type", f"expected a list, got {repr(value)[:60]}", path))
            return []
        return value

    def _text(self, mapping: Any, key: str, path: str) -> str:
        value = mapping.get(key) if isinstance(mapping, dict) else None
        if isinstance(value, str) and is_name(value):
            return value
        reason = f"expected 1 to 200 printable characters, and not *, got {repr(value)[:60]}"
        self.faults.append(Fault("invalid_text", reason, f"{path}.{key}"))
        return ""


def _read_constraint(constraint: Any) -> Since | Daily | None:
    if not isinstance(constraint, dict) or not all(isinstance(value, str) for value in constraint.values()):
        return None
    try:
        if set(constraint) == {"start_date"} and _DAY.fullmatch(constraint["start_date"]):
            return Since(date.fromisoformat(constraint["start_date"]))
        if set(constraint) == {"start_time", "end_time"} and all(_HOUR.fullmatch(text) for text in constraint.values()):
            daily = Daily(*(time.fromisoformat(constraint[name][:-1]) for name in ("start_time", "end_time")))
            return daily if daily.start < daily.end else None
    except ValueError:
        return None
    return None
