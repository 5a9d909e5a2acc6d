"""Reads LiteLLM's table (`model_prices_and_context_window.json` of BerriAI/litellm) into a price sheet.

Prices are per single token, second, character, image or query. A key's ending names a condition: `_above_200k_tokens`
(a request with more input tokens has this price for all its tokens), `_batches`, `_flex`, `_priority` (its service
tier). `tiered_pricing` lists prices by ranges of input tokens, `(from, to]`, one of which is the whole request's. Where
a table has no price for a long request in a service tier, the long request's counts. Source: that project's
`litellm_core_utils/llm_cost_calc`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from catalogues.price_books.kinds import CACHE_WRITE, CACHED, INPUT, KINDS, OUTPUT, REASONING, WEB_SEARCHES
from catalogues.price_books.read_json import fits, read_amount
from catalogues.price_books.sheet import (
    ALWAYS,
    CONTEXT,
    SEARCH_CONTEXT,
    SERVICE_TIER,
    Condition,
    ModelPrices,
    PriceSheet,
    Selection,
    TimedPrices,
    Unexpressed,
    check_selection,
    is_name,
    sheet_of,
)
from core.errors import Fault, InvalidInputError

_KINDS = {
    "input_cost_per_token": INPUT,
    "cache_read_input_token_cost": CACHED,
    "cache_creation_input_token_cost": CACHE_WRITE,
    "cache_creation_input_token_cost_above_1hr": "llm_cache_write_1h_tokens",
    "input_cost_per_audio_token": "llm_input_audio_tokens",
    "cache_read_input_audio_token_cost": "llm_cached_input_audio_tokens",
    "input_cost_per_image_token": "llm_input_image_tokens",
    "cache_read_input_image_token_cost": "llm_cached_input_image_tokens",
    "output_cost_per_token": OUTPUT,
    "output_cost_per_reasoning_token": REASONING,
    "output_cost_per_audio_token": "llm_output_audio_tokens",
    "output_cost_per_image_token": "llm_output_image_tokens",
    "output_cost_per_video_token": "llm_output_video_tokens",
    "input_cost_per_query": "llm_queries",
    "google_maps_grounding_cost_per_query": "llm_maps_queries",
    "code_interpreter_cost_per_session": "llm_code_sessions",
    "input_cost_per_character": "llm_input_characters",
    "output_cost_per_character": "llm_output_characters",
    "input_cost_per_second": "llm_input_audio_seconds",
    "output_cost_per_second": "llm_output_audio_seconds",
    "input_cost_per_image": "llm_input_images",
    "output_cost_per_image": "llm_output_images",
}
_SEARCH, _TIERED = "search_context_cost_per_query", "tiered_pricing"
_SEARCH_SIZE = "search_context_size_"
# An older name of the same price; a table that has both must agree with itself.
_SAME_AS = {"input_cost_per_token_cache_hit": "cache_read_input_token_cost"}
_PRICE = re.compile(r"cost|pric", re.ASCII)
_ENDING = re.compile(
    r"(?P<base>.+?)(?:_above_(?P<thousands>\d{1,6})k_tokens)?(?:_(?P<tier>batches|flex|priority))?", re.ASCII
)
_TIERS = {"batches": "batch", "flex": "flex", "priority": "priority"}
_NOT_MODELS = frozenset({"sample_spec"})
# Reaches the longer price with exactly so many tokens, not only with more.
_INCLUSIVE = frozenset({"xai"})
_TRANSCRIPTION = "audio_transcription"


def read_litellm(document: Any, selection: Selection) -> PriceSheet:
    """Return the selected models' prices under the table's own names, or under the names given.

    A name finds the entry of that name, or the only one that has it behind its provider ("gemini/gemini-2.5-pro").
    Raises `InvalidInputError` with every fault and its path, and `unknown_provider`, `unknown_model`,
    `ambiguous_model`.
    """
    faults: list[Fault] = []
    unexpressed: list[Unexpressed] = []
    check_selection(selection, faults)
    table = _table(document, faults)
    provider_of = {name: _provider(entry, name, faults) for name, entry in table.items()}
    for provider in selection.providers:
        if provider not in provider_of.values():
            known = ", ".join(sorted(set(provider_of.values()) - {""}))
            faults.append(Fault("unknown_provider", f"no provider {provider!r}; there are: {known}"[:500], "models"))
    names = [name for name in table if not selection.providers or provider_of[name] in selection.providers]
    wanted = {name: name for name in names}
    if selection.models:
        wanted = {name: found for name in selection.models if (found := _find(name, names, faults)) is not None}
    models = []
    for name, key in wanted.items():
        model = _Entry(f"models.{key}", table[key], provider_of[key], faults, unexpressed).read(name)
        models += [model] if model else []
    if faults:
        raise InvalidInputError(faults)
    return sheet_of(models, unexpressed)


def _table(document: Any, faults: list[Fault]) -> dict[str, dict[str, Any]]:
    if isinstance(document, dict) and isinstance(document.get("models"), dict):
        document = document["models"]
    if not isinstance(document, dict):
        raise InvalidInputError([Fault("invalid_type", "expected a mapping of models", "models")])
    table = {}
    for name, entry in document.items():
        if name in _NOT_MODELS:
            continue
        if not is_name(name):
            faults.append(
                Fault(
                    "invalid_text",
                    "a model's name is 1 to 200 printable characters, and not *",
                    f"models.{name[:60]!r}",
                )
            )
        elif not isinstance(entry, dict):
            faults.append(Fault("invalid_type", f"expected a mapping, got {repr(entry)[:60]}", f"models.{name}"))
        else:
            table[name] = entry
    return table


def _provider(entry: dict[str, Any], name: str, faults: list[Fault]) -> str:
    provider = entry.get("litellm_provider", "")
    if not isinstance(provider, str):
        faults.append(Fault("invalid_text", "expected a text", f"models.{name}.litellm_provider"))
        return ""
    return provider


def _find(name: str, names: list[str], faults: list[Fault]) -> str | None:
    if name in names:
        return name
    found = [key for key in names if key.partition("/")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        reason = f"{name[:200]!r} may be any of {', '.join(found)}: choose with --provider"[:500]
        faults.append(Fault("ambiguous_model", reason, "models"))
    else:
        faults.append(Fault("unknown_model", f"no model goes by the name {name[:200]!r}", "models"))
    return None


class _Entry:
    """One model's entry on its way into prices."""

    def __init__(
        self, path: str, entry: dict[str, Any], provider: str, faults: list[Fault], unexpressed: list[Unexpressed]
    ) -> None:
        self._path, self._entry, self._provider = path, entry, provider
        self._faults, self._unexpressed = faults, unexpressed
        self._prices: dict[str, dict[Condition, Decimal]] = {}
        self._whole = True

    def read(self, name: str) -> ModelPrices | None:
        """Return the model's prices; None where a price is missing in whose place another would stand."""
        faults_before = len(self._faults)
        for key, value in self._entry.items():
            if value is None:
                continue
            if key == _SEARCH:
                self._read_searches(value)
            elif key == _TIERED:
                self._read_ranges(value)
            elif key in _SAME_AS:
                self._check_same(key, value)
            else:
                self._read_price(key, value)
        if len(self._faults) > faults_before or not self._whole:
            return None
        if self._prices.get(REASONING) == {ALWAYS: self._prices.get(OUTPUT, {}).get(ALWAYS)}:
            # The table repeats the output price and leaves out what it is in a service tier: it is that of output.
            del self._prices[REASONING]
        if not self._prices:
            self._leave_out("", "no_price", "the table has no price for this model")
            return None
        return ModelPrices(name, (TimedPrices(None, self._prices),), self._path)

    def _read_price(self, key: str, value: Any) -> None:
        # Nothing else ends like a price with a condition, so a match is never None.
        parts = _ENDING.fullmatch(key)
        base = parts["base"] if parts else key
        if base not in _KINDS or parts is None:
            if _PRICE.search(key):
                self._leave_out(key, "unknown_price", "a price of something this importer has no meter for")
            return
        amount = self._amount(key, value)
        if key == "output_cost_per_second" and self._entry.get("mode") == _TRANSCRIPTION:
            if amount:
                reason = "a transcription has one duration, which input_cost_per_second prices"
                self._leave_out(key, "priced_twice", reason)
            return
        condition: list[tuple[str, str]] = []
        if parts["thousands"]:
            condition.append((CONTEXT, self._above(int(parts["thousands"]) * 1000)))
        if parts["tier"]:
            condition.append((SERVICE_TIER, _TIERS[parts["tier"]]))
        self._put(_KINDS[base], tuple(condition), amount)

    def _read_searches(self, value: Any) -> None:
        if not isinstance(value, dict) or not value:
            self._fault(_SEARCH, "invalid_type", f"expected prices by search context, got {repr(value)[:60]}")
            return
        sizes = {size: self._amount(f"{_SEARCH}.{size}", amount) for size, amount in value.items()}
        for size in sizes:
            if not size.startswith(_SEARCH_SIZE):
                self._leave_out(f"{_SEARCH}.{size}", "unknown_price", "no size of a search context")
        if len(set(sizes.values())) == 1:
            self._put(WEB_SEARCHES, ALWAYS, next(iter(sizes.values())))
            return
        for size, amount in sizes.items():
            self._put(WEB_SEARCHES, ((SEARCH_CONTEXT, size.removeprefix(_SEARCH_SIZE)),), amount)

    def _read_ranges(self, value: Any) -> None:
        if not isinstance(value, list) or not value:
            self._fault(_TIERED, "invalid_type", "expected a list of prices by range")
            return
        expected = Decimal(0)
        for index, tier in enumerate(value):
            path = f"{_TIERED}[{index}]"
            bounds = self._bounds(tier, path)
            if bounds is None:
                return
            if bounds[0] != expected:
                reason = f"ranges must follow one another: expected {expected:f}, got {bounds[0]:f}"
                self._fault(f"{path}.range", "tier_hole" if bounds[0] > expected else "tier_overlap", reason)
                return
            expected = bounds[1]
            self._read_range(tier, path, ((CONTEXT, self._above(int(bounds[0]))),) if index else ALWAYS)

    def _bounds(self, tier: Any, path: str) -> tuple[Decimal, Decimal] | None:
        limits = tier.get("range") if isinstance(tier, dict) else None
        if not isinstance(limits, list) or len(limits) != 2:
            self._leave_out(path, "unknown_tier", "only prices by a range of input tokens are known")
            self._whole = False
            return None
        start, end = (read_amount(limit, f"{self._path}.{path}.range", self._faults) for limit in limits)
        if start is None or end is None:
            return None
        if start != int(start) or end <= start:
            self._fault(f"{path}.range", "invalid_tier", "expected two whole numbers, the second one greater")
            return None
        return start, end

    def _read_range(self, tier: dict[str, Any], path: str, condition: Condition) -> None:
        for key, value in tier.items():
            if key in ("range", "max_results_range") or value is None:
                continue
            if key not in _KINDS:
                if _PRICE.search(key):
                    self._leave_out(f"{path}.{key}", "unknown_price", "a price this importer has no meter for")
                continue
            self._put(_KINDS[key], condition, self._amount(f"{path}.{key}", value))

    def _check_same(self, key: str, value: Any) -> None:
        other = self._entry.get(_SAME_AS[key])
        if other is None:
            self._put(_KINDS[_SAME_AS[key]], ALWAYS, self._amount(key, value))
        elif self._amount(key, value) != self._amount(_SAME_AS[key], other):
            self._leave_out(key, "contradiction", f"differs from {_SAME_AS[key]}, which is the newer name of it")
            self._whole = False

    def _put(self, kind_id: str, condition: Condition, amount: Decimal) -> None:
        amount *= KINDS[kind_id].per
        if fits(amount):
            self._prices.setdefault(kind_id, {})[condition] = amount
        else:
            self._leave_out("", "too_many_digits", f"{amount:f} for {kind_id} has more digits than a price can hold")
            self._whole = False

    def _above(self, tokens: int) -> str:
        return f"from_{tokens}" if self._provider in _INCLUSIVE else f"above_{tokens}"

    def _amount(self, key: str, value: Any) -> Decimal:
        return read_amount(value, f"{self._path}.{key}", self._faults) or Decimal(0)

    def _fault(self, key: str, code: str, reason: str) -> None:
        self._faults.append(Fault(code, reason, f"{self._path}.{key}"))

    def _leave_out(self, key: str, code: str, reason: str) -> None:
        path = f"{self._path}.{key}" if key else self._path
        self._unexpressed.append(Unexpressed(path, code, reason))
