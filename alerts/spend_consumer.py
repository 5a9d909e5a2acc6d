"""Worker of spend alerts: running costs from `usage.rated` against money thresholds. `meterbook worker spend-alerts`.

A record only says whose cost has changed; the present cost is read where the rating consumer wrote it. So a replay
judges the present again and finds nothing new, and many records of a tenant are judged once. It claims for the channels
that its settings name, so they must be those of the `alerts` worker, which delivers.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import psycopg
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from clickhouse_connect.driver.exceptions import ClickHouseError
from psycopg_pool import PoolTimeout

from alerts.adapters.clickhouse_costs import ClickHouseCosts
from alerts.adapters.postgres_spend import PostgresSpendStates
from alerts.consumer import channel_names
from alerts.domain.wording import period_text
from alerts.watch_spend import watch_spend
from core.alert_rules import AlertRule, AlertRules
from core.clock import Clock, SystemClock
from core.dead_letter import DeadLetter
from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN
from core.messages import RunningCost, decode_message
from core.period import month_key
from core.topics import BILLING_REJECTED, USAGE_RATED
from runtime.alert_rules import AlertRulesCache
from runtime.postgres import create_pool
from runtime.settings import Settings
from runtime.topic_consumer import create_producer

GROUP = "spend-alerts"
_POLL_MS = 500
_RECORDS_AT_ONCE = 5_000
_PAUSE_SECONDS = 1.0
log = structlog.get_logger()


class SpendWatch:
    """Judges months whose cost has changed, and all present ones when the rules have changed."""

    def __init__(
        self, costs: ClickHouseCosts, states: PostgresSpendStates, channels: tuple[str, ...], clock: Clock
    ) -> None:
        self._costs, self._states, self._channels, self._clock = costs, states, channels, clock
        self._judged_by: tuple[AlertRule, ...] | None = None

    async def judge(self, months: set[tuple[str, str]], rules: AlertRules) -> None:
        """Judge the months given; with rules that are new to this process every tenant's present one too."""
        money = tuple(rule for rule in rules.rules if rule.kind == "money")
        if money and money != self._judged_by:
            months = months | set(await self._costs.months_with_costs(_open_periods(self._clock.now())))
        crossings = await watch_spend(
            months,
            rules=rules,
            costs=self._costs,
            states=self._states,
            channels=self._channels,
            clock=self._clock,
        )
        self._judged_by = money
        if crossings:
            log.info("spend.crossed", thresholds=crossings)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Watch spending until `stop` is set; several may run at once, an outage of a store is waited out."""
    consumer = AIOKafkaConsumer(
        USAGE_RATED.name,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=GROUP,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer, costs = create_producer(settings), ClickHouseCosts(settings)
    await producer.start()
    await consumer.start()
    try:
        async with create_pool(settings, max_size=3) as pool:
            rules = AlertRulesCache(pool, settings.alert_thresholds_percent, settings.registry_refresh_seconds)
            watch = SpendWatch(costs, PostgresSpendStates(pool), channel_names(settings), SystemClock())
            while not stop.is_set():
                fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_AT_ONCE)
                try:
                    await watch.judge(await _months_of(fetched, producer), await rules.get())
                    if fetched:
                        await consumer.commit({part: records[-1].offset + 1 for part, records in fetched.items()})
                except (OSError, KafkaError, ClickHouseError, psycopg.Error, PoolTimeout, TimeoutError) as error:
                    log.warning("spend_alerts.waiting", error=repr(error)[:300])
                    await _go_back(consumer, fetched)
                    await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        await consumer.stop()
        await producer.stop()
        await costs.close()


async def _months_of(
    fetched: dict[TopicPartition, list[ConsumerRecord]], producer: AIOKafkaProducer
) -> set[tuple[str, str]]:
    """Return whose costs have changed; what is no running cost goes to the dead letters."""
    months = set()
    for record in (record for records in fetched.values() for record in records):
        try:
            months.add(_month_of(record.value))
        except InvalidInputError as refused:
            letter = DeadLetter(
                code=refused.faults[0].code,
                reason=str(refused),
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                index=-1,
                received_ms=record.timestamp,
                body=record.value,
            )
            await producer.send_and_wait(
                BILLING_REJECTED.name, value=record.value, key=record.key, headers=letter.headers()
            )
            log.error("record.rejected", topic=record.topic, offset=record.offset, code=letter.code)
    return months


def _month_of(raw: bytes | None) -> tuple[str, str]:
    cost = decode_message(raw, RunningCost)
    if not TENANT_PATTERN.fullmatch(cost.tenant_id):
        raise InvalidInputError([Fault("invalid_tenant", f"no tenant id: {cost.tenant_id[:80]!r}", "tenant_id")])
    period_text(cost.period)
    return cost.tenant_id, cost.period


def _open_periods(now: datetime) -> list[str]:
    """Return the names that present months and billing periods can have, in any zone."""
    days = [now + timedelta(days=1 - back) for back in range(33)]
    return sorted({month_key(day) for day in days[:3]} | {day.date().isoformat() for day in days})


async def _go_back(consumer: AIOKafkaConsumer, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> None:
    """Read the same records again: nothing may be skipped because a store was away."""
    for partition, records in fetched.items():
        if partition in consumer.assignment():
            consumer.seek(partition, records[0].offset)
