"""The dead-letter desk: the verbs on the real engines, for the command and (as `api.ports.DeadLetterDesk`) the API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

from core.clock import Clock, SystemClock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError, UnavailableError
from core.event_time import to_microseconds
from core.topics import USAGE_EVENTS
from core.usage_event import IngestLimits, Rejection, is_batch, parse_batch, parse_event
from metering.dead_letters.adapters.kafka_letters import KafkaLetters, KafkaLetterSender
from metering.dead_letters.adapters.postgres_actions import PostgresLetters
from metering.dead_letters.count_letters import count_letters
from metering.dead_letters.discard_letters import Discarded, discard_letters
from metering.dead_letters.documents import (
    count_document,
    discarded_document,
    letter_document,
    page_document,
    replayed_document,
)
from metering.dead_letters.domain.letter import Action, Letter, Place
from metering.dead_letters.domain.letter_filter import LetterFilter, Order
from metering.dead_letters.list_letters import LetterPage, list_letters
from metering.dead_letters.ports import CodeCount, LetterActions, LetterJudge, Letters, LetterSender, LetterTallies
from metering.dead_letters.replay_letters import Replayed, ReplayOrder, replay_letters
from metering.dead_letters.show_letter import show_letter
from runtime.postgres import Pool, create_pool
from runtime.registry import RegistryCache
from runtime.settings import Settings

_PAGE = 500
# What a request for counts reads at most; a worker and the command count the rest.
_COUNTED_PER_REQUEST = 50_000


class AlreadySettledError(ConflictError):
    """The letter was replayed or discarded before."""

    code = "already_settled"


class DeadLetterDesk:
    """Everything that can be done with dead letters."""

    def __init__(
        self,
        *,
        letters: Letters,
        actions: LetterActions,
        tallies: LetterTallies,
        sender: LetterSender,
        judge: LetterJudge,
        clock: Clock,
    ) -> None:
        self._letters, self._actions, self._tallies = letters, actions, tallies
        self._sender, self._judge, self._clock = sender, judge, clock

    async def page(self, wanted: LetterFilter, *, order: Order, limit: int, cursor: str | None) -> LetterPage:
        """Return a page of letters."""
        return await list_letters(
            wanted, letters=self._letters, actions=self._actions, order=order, limit=limit, cursor=cursor
        )

    async def show(self, place: Place) -> tuple[Letter, tuple[Action, ...]]:
        """Return a letter with its body, and its actions; `NotFoundError`."""
        return await show_letter(place, letters=self._letters, actions=self._actions)

    async def places(self, wanted: LetterFilter, most: int | None) -> AsyncIterator[list[Place]]:
        """Yield the letters meant, oldest first, page by page; letters put aside after the call began are left out."""
        until = int(self._clock.now().timestamp() * 1_000)
        if wanted.until_ms is None and (wanted.since_ms is None or wanted.since_ms < until):
            wanted = LetterFilter(wanted.topic, wanted.code, wanted.tenant, wanted.since_ms, until, wanted.state)
        cursor: str | None = None
        while True:
            limit = _PAGE if most is None else min(_PAGE, most)
            page = await self.page(wanted, order="oldest", limit=limit, cursor=cursor)
            if page.letters:
                yield [found.head.place for found in page.letters]
            if most is not None:
                most -= len(page.letters)
            if page.cursor is None or most == 0:
                return
            cursor = page.cursor

    async def replay(self, places: Sequence[Place], order: ReplayOrder) -> list[Replayed]:
        """Replay letters."""
        return await replay_letters(
            places,
            order,
            letters=self._letters,
            actions=self._actions,
            sender=self._sender,
            judge=self._judge,
            clock=self._clock,
            make_id=_make_id,
        )

    async def discard(self, places: Sequence[Place], *, actor: str, reason: str) -> list[Discarded]:
        """Discard letters."""
        return await discard_letters(
            places,
            actor=actor,
            reason=reason,
            letters=self._letters,
            actions=self._actions,
            clock=self._clock,
            make_id=_make_id,
        )

    async def counts(self, looked_at_max: int | None = None) -> tuple[list[CodeCount], bool]:
        """Return counts by topic and code, and whether they are complete."""
        return await count_letters(
            letters=self._letters, tallies=self._tallies, clock=self._clock, looked_at_max=looked_at_max
        )

    # As the API's port: documents.

    async def list_letters(
        self,
        *,
        topic: str | None,
        code: str | None,
        tenant: str | None,
        since: datetime | None,
        until: datetime | None,
        state: str | None,
        order: str,
        limit: int,
        cursor: str | None,
    ) -> dict[str, Any]:
        """Return a page as a document."""
        wanted = LetterFilter(topic, code, tenant, _milliseconds(since), _milliseconds(until), state)  # type: ignore[arg-type]
        return page_document(
            await self.page(wanted, order="oldest" if order == "oldest" else "newest", limit=limit, cursor=cursor)
        )

    async def count_letters(self) -> dict[str, Any]:
        """Return the counts as a document."""
        counts, is_complete = await self.counts(_COUNTED_PER_REQUEST)
        return {"data": [count_document(count) for count in counts], "is_complete": is_complete}

    async def find_letter(self, topic: str, partition: int, offset: int) -> dict[str, Any]:
        """Return a letter as a document; `NotFoundError`."""
        place = Place(topic, partition, offset)
        return letter_document(*await self.show(place))

    async def replay_letter(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        actor: str,
        reason: str,
        again: bool,
        dry_run: bool,
        mended: bytes | None,
    ) -> dict[str, Any]:
        """Replay one letter; every refusal is an error of its family."""
        order = ReplayOrder(actor, reason, again=again, dry_run=dry_run, mended=mended)
        (result,) = await self.replay([Place(topic, partition, offset)], order)
        if result.outcome == "failed":
            raise UnavailableError(result.reason)
        if result.outcome == "refused":
            _raise(result.place, result.code, result.reason)
        return replayed_document(result)

    async def discard_letter(
        self, topic: str, partition: int, offset: int, *, actor: str, reason: str
    ) -> dict[str, Any]:
        """Discard one letter; every refusal is an error of its family."""
        (result,) = await self.discard([Place(topic, partition, offset)], actor=actor, reason=reason)
        if result.outcome == "refused":
            _raise(result.place, result.code, result.reason)
        return discarded_document(result)


@asynccontextmanager
async def open_desk(settings: Settings, pool: Pool | None = None) -> AsyncIterator[DeadLetterDesk]:
    """Open a desk on the settings' engines, with a pool of its own if none is given."""
    clock = SystemClock()
    letters, sender = KafkaLetters(settings), KafkaLetterSender(settings)
    own = create_pool(settings, max_size=2) if pool is None else None
    try:
        if own is not None:
            await own.open()
        used = own or pool
        assert used is not None
        store = PostgresLetters(used)
        yield DeadLetterDesk(
            letters=letters,
            actions=store,
            tallies=store,
            sender=sender,
            judge=_judge(settings, used, clock),
            clock=clock,
        )
    finally:
        await sender.close()
        await letters.close()
        if own is not None:
            await own.close()


def _judge(settings: Settings, pool: Pool, clock: Clock) -> LetterJudge:
    registry = RegistryCache(pool, clock, refresh_seconds=settings.registry_refresh_seconds)
    limits = IngestLimits(
        max_bytes=settings.event_max_bytes,
        max_ahead_us=settings.event_max_ahead_seconds * 1_000_000,
        max_age_us=settings.event_max_age_days * 86_400_000_000,
    )

    async def judge(topic: str, value: bytes) -> Rejection | None:
        if topic != USAGE_EVENTS.name:
            return None
        known = (await registry.get()).registry
        received_us = to_microseconds(clock.now())
        if not is_batch(value):
            items: list[bytes] | Rejection = [value]
        else:
            items = parse_batch(value, limits)
        if isinstance(items, Rejection):
            return items
        judged = (parse_event(item, known, limits, received_us) for item in items)
        return next((found for found in judged if isinstance(found, Rejection)), None)

    return judge


def _raise(place: Place, code: str, reason: str) -> None:
    if code == "not_found":
        raise NotFoundError(reason)
    if code.startswith("already_"):
        raise AlreadySettledError(reason)
    raise InvalidInputError([Fault(code, reason, str(place))])


def _make_id() -> str:
    return str(uuid4())


def _milliseconds(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp() * 1_000)
