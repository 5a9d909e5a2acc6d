"""`/dead-letters`: what was refused, with its bytes; replaying and discarding it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.dependencies import Dependencies
from api.problems import respond_json
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN

_TOPIC = r"^[a-z]{1,20}\.[a-z]{1,20}$"
_OFFSET_MAX = 2**63 - 1
Topic = Annotated[str, Path(pattern=_TOPIC)]
Partition = Annotated[int, Path(ge=0, le=10_000)]
Offset = Annotated[int, Path(ge=0, le=_OFFSET_MAX)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: str = Field(min_length=1, max_length=128, description="who does it")


class ReplayRequest(_Request):
    """A replay; `mended_body` is sent instead of the letter's body, `again` sends a settled letter once more."""

    reason: str = Field("", max_length=1_000)
    again: bool = False
    dry_run: bool = False
    mended_body: str | None = Field(None, max_length=2_000_000)


class DiscardRequest(_Request):
    """A discard and why."""

    reason: str = Field(min_length=1, max_length=1_000)


def create_dead_letter_router(dependencies: Dependencies, prefix: str) -> APIRouter:
    """Return the routes of dead letters."""
    router = APIRouter(prefix=f"{prefix}/dead-letters", tags=["dead letters"])
    _add_reading(router, dependencies)
    _add_settling(router, dependencies)
    return router


def _add_reading(router: APIRouter, dependencies: Dependencies) -> None:
    @router.get("")
    async def list_letters(
        topic: Annotated[str | None, Query(pattern=_TOPIC)] = None,
        code: Annotated[str | None, Query(max_length=64)] = None,
        tenant_id: Annotated[str | None, Query(pattern=f"^{TENANT_PATTERN.pattern}$")] = None,
        since: Annotated[datetime | None, Query(description="put aside from then on")] = None,
        until: Annotated[datetime | None, Query(description="put aside before")] = None,
        state: Annotated[Literal["open", "replayed", "discarded", "all"], Query()] = "open",
        order: Annotated[Literal["newest", "oldest"], Query(description="which comes first")] = "newest",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query(max_length=20_000, description="`next_cursor` of the page before")] = None,
    ) -> Response:
        """List dead letters. A page may hold fewer than `limit` and still have a `next_cursor`: reads are bounded."""
        faults = [
            Fault("time_without_zone", "expected a time with its zone", name)
            for name, instant in (("since", since), ("until", until))
            if instant is not None and instant.tzinfo is None
        ]
        if faults:
            raise InvalidInputError(faults)
        page = await dependencies.dead_letters.list_letters(
            topic=topic,
            code=code,
            tenant=tenant_id,
            since=since,
            until=until,
            state=None if state == "all" else state,
            order=order,
            limit=limit,
            cursor=cursor,
        )
        return respond_json(page)

    @router.get("/counts")
    async def count_letters() -> Response:
        """Return how many letters there are and how many are open, by topic and code."""
        return respond_json(await dependencies.dead_letters.count_letters())

    @router.get("/{topic}/{partition}/{offset}")
    async def read_letter(topic: Topic, partition: Partition, offset: Offset) -> Response:
        """Return a letter with its body and what was done about it."""
        return respond_json(await dependencies.dead_letters.find_letter(topic, partition, offset))


def _add_settling(router: APIRouter, dependencies: Dependencies) -> None:
    @router.post("/{topic}/{partition}/{offset}/replay")
    async def replay_letter(topic: Topic, partition: Partition, offset: Offset, request: ReplayRequest) -> Response:
        """Send the letter back to its source topic; an event that arrives twice counts once."""
        mended = request.mended_body
        done = await dependencies.dead_letters.replay_letter(
            topic,
            partition,
            offset,
            actor=request.by,
            reason=request.reason,
            again=request.again,
            dry_run=request.dry_run,
            mended=None if mended is None else mended.encode(),
        )
        return respond_json(done)

    @router.post("/{topic}/{partition}/{offset}/discard")
    async def discard_letter(topic: Topic, partition: Partition, offset: Offset, request: DiscardRequest) -> Response:
        """Put the letter away for good; nothing is deleted."""
        done = await dependencies.dead_letters.discard_letter(
            topic, partition, offset, actor=request.by, reason=request.reason
        )
        return respond_json(done)
