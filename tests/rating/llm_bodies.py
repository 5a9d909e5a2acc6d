"""Reads providers' own usage bodies into the properties of an `llm.completion` event: each token once, by kind.

What each provider counts inside what, from their API references: OpenAI, Mistral, Groq, DeepSeek and Google report
cached tokens inside the input, Anthropic beside it; Google reports thoughts beside the answer, the others inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Usage = dict[str, int]


def read_body(provider: str, flavor: str, body: Mapping[str, Any]) -> tuple[Usage, int]:
    """Return the event's quantities and the request's total input tokens, which decide its context."""
    match provider, flavor:
        case "google", "default":
            return _google(body["usageMetadata"])
        case "anthropic", "default":
            return _anthropic(body["usage"])
        case "openai", "responses":
            return _inclusive(body["usage"], "input_tokens", "output_tokens")
    return _inclusive(body["usage"], "prompt_tokens", "completion_tokens")


def _inclusive(usage: Mapping[str, Any], inputs: str, outputs: str) -> tuple[Usage, int]:
    given = usage.get(f"{inputs}_details") or {}
    answered = usage.get(f"{outputs}_details") or {}
    cached, written, audio = (given.get(name) or 0 for name in ("cached_tokens", "cache_write_tokens", "audio_tokens"))
    reasoning, spoken = (answered.get(name) or 0 for name in ("reasoning_tokens", "audio_tokens"))
    total = usage[inputs]
    found = {
        "input_tokens": total - cached - written - audio,
        "cached_input_tokens": cached,
        "cache_write_tokens": written,
        "input_audio_tokens": audio,
        "output_tokens": usage.get(outputs, 0) - reasoning - spoken,
        "reasoning_tokens": reasoning,
        "output_audio_tokens": spoken,
    }
    return found, total


def _anthropic(usage: Mapping[str, Any]) -> tuple[Usage, int]:
    cached, written = usage["cache_read_input_tokens"] or 0, usage["cache_creation_input_tokens"] or 0
    for_an_hour = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    found = {
        "input_tokens": usage["input_tokens"],
        "cached_input_tokens": cached,
        "cache_write_tokens": written - for_an_hour,
        "cache_write_1h_tokens": for_an_hour,
        "output_tokens": usage["output_tokens"] - thinking,
        "reasoning_tokens": thinking,
        "web_searches": (usage.get("server_tool_use") or {}).get("web_search_requests") or 0,
    }
    return found, usage["input_tokens"] + cached + written


def _google(usage: Mapping[str, Any]) -> tuple[Usage, int]:
    total = usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0)
    given, cached = (_by_modality(usage.get(name)) for name in ("promptTokensDetails", "cacheTokensDetails"))
    answered = _by_modality(usage.get("candidatesTokensDetails"))
    thoughts = usage.get("thoughtsTokenCount", 0)
    audio, image, video = (given.get(modality, 0) - cached.get(modality, 0) for modality in ("AUDIO", "IMAGE", "VIDEO"))
    # A cached video token has no kind of its own: it is a cached token.
    cached_audio, cached_image = cached.get("AUDIO", 0), cached.get("IMAGE", 0)
    all_cached = usage.get("cachedContentTokenCount", 0)
    drawn = answered.get("IMAGE", 0)
    found = {
        "input_tokens": total - all_cached - audio - image - video,
        "cached_input_tokens": all_cached - cached_audio - cached_image,
        "input_audio_tokens": audio,
        "cached_input_audio_tokens": cached_audio,
        "input_image_tokens": image,
        "cached_input_image_tokens": cached_image,
        "input_video_tokens": video,
        "output_tokens": usage.get("candidatesTokenCount", 0) - drawn,
        "reasoning_tokens": thoughts,
        "output_image_tokens": drawn,
    }
    return found, total


def _by_modality(details: list[Mapping[str, Any]] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for detail in details or ():
        # Pages of a document are priced as images.
        modality = "IMAGE" if detail["modality"] == "DOCUMENT" else detail["modality"]
        found[modality] = found.get(modality, 0) + detail.get("tokenCount", 0)
    return found
