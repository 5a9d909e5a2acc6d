"""The kinds of usage a price book prices. Owns their meters: each token is counted by exactly one.

A producer reports a request's tokens split by kind, once each: a cached audio token is `cached_input_audio_tokens` and
nothing else. A model without a price of its own for a kind is priced as the next wider kind.
"""

from __future__ import annotations

from dataclasses import dataclass

EVENT_TYPE = "llm.completion"
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of usage. `kind_id` names its meter and charge, `value_property` what an event reports it in.

    Prices are written for `per` units. `wider` are the kinds whose price stands in where a model has none; where
    several have one, no price can be told. `wanted` kinds are in every book, so that a producer need not know which
    model prices what.
    """

    kind_id: str
    name: str
    value_property: str
    wider: tuple[str, ...] = ()
    unit: str = "token"
    per: int = MILLION
    wanted: bool = True


INPUT, OUTPUT, REASONING = "llm_input_tokens", "llm_output_tokens", "llm_reasoning_tokens"
CACHED, CACHE_WRITE = "llm_cached_input_tokens", "llm_cache_write_tokens"
WEB_SEARCHES = "llm_web_searches"

_ALL = (
    Kind(INPUT, "LLM input tokens", "input_tokens"),
    Kind(CACHED, "LLM input tokens read from a cache", "cached_input_tokens", (INPUT,)),
    Kind(CACHE_WRITE, "LLM input tokens written to a cache", "cache_write_tokens", (INPUT,)),
    Kind(
        "llm_cache_write_1h_tokens",
        "LLM input tokens written to an hour's cache",
        "cache_write_1h_tokens",
        (CACHE_WRITE,),
    ),
    Kind("llm_input_audio_tokens", "LLM audio input tokens", "input_audio_tokens", (INPUT,)),
    Kind(
        "llm_cached_input_audio_tokens",
        "LLM audio input tokens read from a cache",
        "cached_input_audio_tokens",
        (CACHED, "llm_input_audio_tokens"),
    ),
    Kind("llm_input_image_tokens", "LLM image input tokens", "input_image_tokens", (INPUT,)),
    Kind(
        "llm_cached_input_image_tokens",
        "LLM image input tokens read from a cache",
        "cached_input_image_tokens",
        (CACHED, "llm_input_image_tokens"),
    ),
    Kind("llm_input_video_tokens", "LLM video input tokens", "input_video_tokens", (INPUT,)),
    Kind(OUTPUT, "LLM output tokens", "output_tokens"),
    Kind(REASONING, "LLM reasoning tokens", "reasoning_tokens", (OUTPUT,)),
    Kind("llm_output_audio_tokens", "LLM audio output tokens", "output_audio_tokens", (OUTPUT,)),
    Kind("llm_output_image_tokens", "LLM image output tokens", "output_image_tokens", (OUTPUT,)),
    Kind("llm_output_video_tokens", "LLM video output tokens", "output_video_tokens", (OUTPUT,)),
    Kind(WEB_SEARCHES, "LLM web searches", "web_searches", unit="search", per=1_000, wanted=False),
    Kind("llm_maps_queries", "LLM maps queries", "maps_queries", unit="query", per=1_000, wanted=False),
    Kind("llm_queries", "LLM queries", "queries", unit="query", per=1_000, wanted=False),
    Kind("llm_code_sessions", "LLM code interpreter sessions", "code_sessions", unit="session", per=1, wanted=False),
    Kind("llm_input_characters", "LLM input characters", "input_characters", unit="character", wanted=False),
    Kind("llm_output_characters", "LLM output characters", "output_characters", unit="character", wanted=False),
    Kind("llm_input_audio_seconds", "LLM audio input", "input_audio_seconds", unit="second", per=3_600, wanted=False),
    Kind(
        "llm_output_audio_seconds", "LLM audio output", "output_audio_seconds", unit="second", per=3_600, wanted=False
    ),
    Kind("llm_input_images", "LLM input images", "input_images", unit="image", per=1, wanted=False),
    Kind("llm_output_images", "LLM output images", "output_images", unit="image", per=1, wanted=False),
)
KINDS: dict[str, Kind] = {kind.kind_id: kind for kind in _ALL}
