"""Show one letter with its body and all that was done about it."""

from __future__ import annotations

from core.errors import NotFoundError
from metering.dead_letters.domain.letter import Action, Letter, Place
from metering.dead_letters.domain.letter_filter import LETTER_TOPICS
from metering.dead_letters.ports import LetterActions, Letters


async def show_letter(place: Place, *, letters: Letters, actions: LetterActions) -> tuple[Letter, tuple[Action, ...]]:
    """Return the letter and its actions; raises `NotFoundError`, `UnavailableError`."""
    found = await letters.load([place], 1) if place.topic in LETTER_TOPICS else []
    if not found:
        raise NotFoundError(f"there is no dead letter at {place}")
    return found[0], (await actions.find([place])).get(place, ())
