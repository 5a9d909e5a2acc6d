"""Idempotency keys as Stripe keeps them (API reference, "Idempotent requests"). Owns replay, conflict and in-flight."""

from __future__ import annotations

from dataclasses import dataclass

from tests.standins.stripe_errors import invalid, key_in_use, key_reused

KEY_LENGTH_MAX = 255


@dataclass(frozen=True)
class SavedResult:
    """The first answer given for a key."""

    endpoint: str
    fingerprint: str
    status: int
    body: bytes
    headers: dict[str, str]


class IdempotencyKeys:
    """The results kept by key, and the keys whose request is still running."""

    def __init__(self) -> None:
        self._saved: dict[str, SavedResult] = {}
        self._running: set[str] = set()

    def begin(self, key: str, endpoint: str, fingerprint: str) -> SavedResult | None:
        """Return the result to replay, or None when this is the key's first request; it must then be ended.

        Raises 409 while the first request runs, and 400 idempotency_error for another endpoint or other parameters.
        """
        if len(key) > KEY_LENGTH_MAX:
            raise invalid(f"Idempotency keys are up to {KEY_LENGTH_MAX} characters long.")
        if key in self._running:
            raise key_in_use(key)
        saved = self._saved.get(key)
        if saved is None:
            self._running.add(key)
            return None
        if saved.endpoint != endpoint:
            raise key_reused(key, f"for the same endpoint they were first used for ('{saved.endpoint}')")
        if saved.fingerprint != fingerprint:
            raise key_reused(key, "with the same parameters they were first used with")
        return saved

    def save(self, key: str, result: SavedResult) -> None:
        """End the key's first request and keep its result, success or not, 500s included."""
        self._running.discard(key)
        assert key not in self._saved, "the first result of a key is never replaced"
        self._saved[key] = result

    def abandon(self, key: str) -> None:
        """End the key's first request without keeping anything: no endpoint had begun."""
        self._running.discard(key)

    def expire(self) -> None:
        """Drop every result, as Stripe may once a key is at least 24 hours old."""
        self._saved.clear()
