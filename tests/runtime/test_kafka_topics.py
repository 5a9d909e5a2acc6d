"""Topics: all are there as `core.topics` says, a wrong partition count and a missing topic are refused."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from core.errors import ConflictError, UnavailableError
from core.topics import ALL_TOPICS, USAGE_EVENTS, Partitioning
from runtime import kafka_topics
from runtime.kafka_topics import BILLING_PARTITIONS, check_topics, create_topics
from runtime.settings import Settings, load_settings

pytestmark = pytest.mark.integration


def with_partitions(settings: Settings, partitions: int) -> Settings:
    return load_settings(home=settings.home, usage_partitions=partitions)


async def test_every_topic_is_there_with_its_partitions_retention_and_timestamps(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        described = {found["topic"]: found for found in await admin.describe_topics([t.name for t in ALL_TOPICS])}
        for topic in ALL_TOPICS:
            [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name)])
            config = {entry[0]: entry[1] for entry in answer.resources[0][4]}
            wanted = settings.usage_partitions if topic.partitioning is Partitioning.USAGE else BILLING_PARTITIONS
            assert len(described[topic.name]["partitions"]) == wanted, topic.name
            assert config["retention.ms"] == str(topic.retention_ms), topic.name
            assert config["max.message.bytes"] == str(topic.max_bytes), topic.name
            kind = "LogAppendTime" if topic is USAGE_EVENTS else "CreateTime"
            assert config["message.timestamp.type"] == kind, topic.name
    finally:
        await admin.close()


async def test_creating_again_creates_nothing(settings: Settings) -> None:
    assert await create_topics(settings) == []
    await check_topics(settings)


@pytest.mark.parametrize("partitions", [1, 3, 5])
async def test_another_partition_count_than_the_topics_have_is_refused(settings: Settings, partitions: int) -> None:
    for check in (create_topics, check_topics):
        with pytest.raises(ConflictError, match=f"METERBOOK_USAGE_PARTITIONS says {partitions}"):
            await check(with_partitions(settings, partitions))


async def test_a_worker_is_told_which_topics_are_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    absent = replace(USAGE_EVENTS, name="never.made")
    monkeypatch.setattr(kafka_topics, "ALL_TOPICS", (*ALL_TOPICS, absent))
    with pytest.raises(UnavailableError, match=r"missing: never\.made; run `meterbook migrate`"):
        await check_topics(settings)


async def test_a_broker_that_is_away_is_told(settings: Settings) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 does not answer"):
        await create_topics(load_settings(home=settings.home, kafka_url="127.0.0.1:1"))
