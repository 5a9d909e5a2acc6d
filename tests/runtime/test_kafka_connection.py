"""A connection to Kafka that breaks under uvloop is known as broken, and the client finds the broker again."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from runtime.kafka_connection import take_uvloops_word
from runtime.settings import Settings

pytestmark = pytest.mark.integration


def test_a_request_on_a_connection_that_was_cut_a_moment_ago_says_so(settings: Settings) -> None:
    take_uvloops_word()
    take_uvloops_word()

    async def cut_and_ask() -> None:
        client = AIOKafkaClient(bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=5_000)
        await client.bootstrap()
        try:
            (node,) = [broker.nodeId for broker in client.cluster.brokers()]
            connection = await client._get_conn(node)
            connection._writer.transport.abort()
            # Until the loop has closed what was cut; who reads from it does not know yet.
            with pytest.raises(KafkaConnectionError, match="handler is closed"):
                await ask_at_every_turn(connection)
            assert not connection.connected()
            assert await client.force_metadata_update(), "it connects anew"
        finally:
            await client.close()

    async def ask_at_every_turn(connection: AIOKafkaConnection) -> None:
        for _ in range(5):
            with closing(connection.send(MetadataRequest([]))):
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(cut_and_ask())
