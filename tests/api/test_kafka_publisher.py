"""The publisher's own producer: one that lost its way is replaced, for requests must not fail until somebody looks."""

from __future__ import annotations

import asyncio

import pytest

from api.adapters.kafka_publisher import KafkaPublisher
from api.ports import NotConfirmedError
from core.topics import USAGE_EVENTS
from runtime.settings import Settings
from tests.on_topics import read_all

pytestmark = pytest.mark.integration


async def test_a_producer_that_lost_its_way_is_replaced(settings: Settings) -> None:
    publisher = KafkaPublisher(settings, confirm_seconds=0.5, replace_seconds=1.0)
    await publisher.open()
    try:
        async with asyncio.timeout(30):
            await published(publisher, b"before")
            lost = publisher._producer
            assert lost is not None
            # As if its tasks had ended by themselves: nobody sends any more, and nobody says so.
            lost._sender._sender_task.cancel()
            with pytest.raises(NotConfirmedError):
                await publisher.publish([("acme", b"lost")])
            await published(publisher, b"after")
            assert publisher._producer is not lost
    finally:
        await publisher.close()
    values = [record.value async for record in read_all(settings.kafka_bootstrap, USAGE_EVENTS.name)]
    assert {b"before", b"after"} <= set(values)


async def published(publisher: KafkaPublisher, value: bytes) -> None:
    """Publish, again and again until it is confirmed."""
    while True:
        try:
            return await publisher.publish([("acme", value)])
        except NotConfirmedError:
            await asyncio.sleep(0.1)
