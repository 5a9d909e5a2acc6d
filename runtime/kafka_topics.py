"""Creates the topics of `core.topics` before any worker starts; never changes one that exists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, for_code

from core.errors import ConflictError, UnavailableError
from core.topics import ALL_TOPICS, Partitioning, Topic
from runtime.settings import Settings

BILLING_PARTITIONS = 2
_TOPIC_ALREADY_EXISTS = 36


class KafkaAwayError(UnavailableError):
    """Kafka does not answer."""


def partitions_of(topic: Topic, settings: Settings) -> int:
    """Return how many partitions `topic` is created with."""
    return settings.usage_partitions if topic.partitioning is Partitioning.USAGE else BILLING_PARTITIONS


async def create_topics(settings: Settings) -> list[str]:
    """Create the missing topics and return their names.

    Raises `ConflictError` if a usage topic has another partition count than `usage_partitions`: the journal, its
    source and the dedupe state belong together partition by partition.
    """
    async with _admin(settings) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        wanted = [
            NewTopic(
                topic.name,
                partitions_of(topic, settings),
                min(3, brokers),
                topic_configs={
                    "retention.ms": str(topic.retention_ms),
                    "min.insync.replicas": str(min(2, brokers)),
                    "message.timestamp.type": "LogAppendTime" if topic.log_append_time else "CreateTime",
                    "max.message.bytes": str(topic.max_bytes),
                },
            )
            for topic in ALL_TOPICS
        ]
        response = await admin.create_topics(wanted)
        created = []
        for name, code, *rest in response.topic_errors:
            if code == 0:
                created.append(name)
            elif code != _TOPIC_ALREADY_EXISTS:
                raise for_code(code)(f"cannot create topic {name}: {rest}")
        await _check_partitions(admin, settings)
        return created


async def check_topics(settings: Settings) -> str:
    """Return the cluster's id if a stream worker may start: a consumer of a missing topic waits, deaf to SIGTERM.

    Raises `UnavailableError` if a topic is missing, `KafkaAwayError` if Kafka does not answer, `ConflictError` as
    `create_topics` does.
    """
    async with _admin(settings) as admin:
        if missing := sorted(await _check_partitions(admin, settings)):
            raise UnavailableError(f"topics are missing: {', '.join(missing)}; run `meterbook migrate` first")
        return str((await admin.describe_cluster())["cluster_id"])


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    try:
        await admin.start()
        yield admin
    except KafkaConnectionError as error:
        raise KafkaAwayError(f"Kafka at {settings.kafka_bootstrap} does not answer: {error}") from error
    finally:
        await admin.close()


async def _check_partitions(admin: AIOKafkaAdminClient, settings: Settings) -> set[str]:
    """Return the names of missing topics."""
    missing = set()
    for description in await admin.describe_topics([topic.name for topic in ALL_TOPICS]):
        topic = next(topic for topic in ALL_TOPICS if topic.name == description["topic"])
        found, wanted = len(description["partitions"]), partitions_of(topic, settings)
        if not found:
            missing.add(topic.name)
        elif topic.partitioning is Partitioning.USAGE and found != wanted:
            raise ConflictError(
                f"topic {topic.name} has {found} partitions, METERBOOK_USAGE_PARTITIONS says {wanted}; "
                "a usage topic's partition count never changes in place"
            )
    return missing
