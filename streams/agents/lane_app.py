"""Attaches lanes to a Faust app: batches to lanes, assignments to opening and closing them, shutdown in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

import faust

from core.topics import Topic
from streams.adapters.batch_transport import TopicReading, batch_topic
from streams.adapters.lanes import Lane, Lanes

Step = Callable[[], Awaitable[None]]
_LOOK_BACK_SECONDS = 1.0


def attach_lanes(
    app: faust.App, topic: Topic, make_lane: Callable[[int], Lane], *, first: Step | None = None, finally_: Step
) -> None:
    """Let `app` read `topic` with one lane per assigned partition.

    `first` runs when the app starts, `finally_` after all lanes are closed at shutdown.
    """
    source = batch_topic(app, topic.name)
    lanes = Lanes(make_lane, TopicReading(app, topic.name))
    app.is_full = lambda tp: tp.topic == topic.name and lanes.is_full(tp.partition)

    @app.agent(source, name=topic.name)  # type: ignore[untyped-decorator]
    async def route(stream: AsyncIterable[Any]) -> None:
        """Hand every fetched batch to its partition's lane, which knows whether it follows."""
        async for event in stream.events():  # type: ignore[attr-defined]
            lanes.put(event.message.partition, event.value)

    @app.task  # type: ignore[untyped-decorator]
    async def look_back() -> None:
        """Notice what was dropped on its way when nothing comes behind it that would show the hole."""
        while True:
            await asyncio.sleep(_LOOK_BACK_SECONDS)
            await lanes.look_back()

    if first is not None:

        @app.task  # type: ignore[untyped-decorator]
        async def start() -> None:
            await first()

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def assign_lanes(app: Any, assigned: Any, **kwargs: Any) -> None:
        await lanes.assign({tp.partition for tp in assigned if tp.topic == topic.name})

    @app.on_partitions_revoked.connect  # type: ignore[untyped-decorator]
    async def pause_lanes(app: Any, revoked: Any, **kwargs: Any) -> None:
        await lanes.pause()

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def close_lanes(app: Any, **kwargs: Any) -> None:
        await lanes.close()
        await finally_()
