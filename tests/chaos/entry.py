"""Starts the `meterbook` command in a process that was tampered with: `python -m tests.chaos.entry PLAN COMMAND...`.

PLAN is a JSON object. What is changed is changed here, by wrapping libraries and classes before the command runs; the
product has no switch for any of it. Defects (`plant`) are those that the suite must be able to see.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Wrapper = Callable[..., Any]
_CHANGES = (
    *("clock", "session_s", "group_session_s", "provider_timeout_s"),
    *("drop_every", "die", "freeze", "round_trip", "plant"),
)


def main() -> None:
    """Tamper as the plan says, then run the command."""
    plan = json.loads(sys.argv[1])
    sys.argv = ["meterbook", *sys.argv[2:]]
    for change in _CHANGES:
        if plan.get(change) is not None:
            globals()[f"_change_{change}"](plan[change])
    from runtime.cli import main as command

    command()


def _change_clock(moves: dict[str, float]) -> None:
    """Shift the process's clock by `shift_s`, by `step_s` more once it ran for `after_s`, and let it go `rate` fast."""
    import core.clock

    real, began = time.time, time.monotonic()

    def shifted() -> float:
        ran = time.monotonic() - began
        ahead = (moves.get("rate", 1) - 1) * ran
        return (
            real() + moves.get("shift_s", 0) + (moves.get("step_s", 0) if ran > moves.get("after_s", 0) else 0) + ahead
        )

    time.time = shifted
    from datetime import UTC, datetime

    core.clock.SystemClock.now = lambda self: datetime.fromtimestamp(shifted(), UTC)  # type: ignore[method-assign]


def _change_session_s(seconds: float) -> None:
    """Let a worker's death be noticed after `seconds`, so that a short run sees it."""
    from streams.adapters import batch_transport

    defaults = batch_transport.create_batch_app.__kwdefaults__
    assert "session_timeout_s" in defaults
    defaults["session_timeout_s"] = seconds


def _change_group_session_s(seconds: float) -> None:
    """Let the death of a member of any other consumer group be noticed after `seconds`."""
    from aiokafka import AIOKafkaConsumer

    inner = AIOKafkaConsumer.__init__

    @functools.wraps(inner)
    def begin(self: Any, *topics: str, **settings: Any) -> None:
        if settings.get("group_id") is not None:
            times = {"session_timeout_ms": int(seconds * 1_000), "heartbeat_interval_ms": int(seconds * 200)}
            settings |= times
        inner(self, *topics, **settings)

    AIOKafkaConsumer.__init__ = begin  # type: ignore[method-assign]


def _change_provider_timeout_s(seconds: float) -> None:
    """Wait for the payment provider no longer than `seconds`, so that a short run sees many time-outs."""
    from payments.adapters.stripe_client import StripeAccount

    defaults = StripeAccount.__init__.__kwdefaults__
    assert "timeout_seconds" in defaults
    defaults["timeout_seconds"] = seconds


def _change_drop_every(number: int) -> None:
    """Drop every `number`-th fetched batch on its way to its partition, as Faust does around a rebalance."""
    from streams.adapters.batch_transport import BatchConsumer

    inner, count = BatchConsumer._getmany, itertools.count(1)

    async def fetch(self: Any, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        fetched = await inner(self, *args, **kwargs)
        return {tp: batches for tp, batches in fetched.items() if next(count) % number}

    BatchConsumer._getmany = fetch  # type: ignore[method-assign]


def _change_die(where: dict[str, Any]) -> None:
    """End this process by kill -9 `before` or `after` the `hit`-th call that passes the point `at`."""
    _signal_at(where, signal.SIGKILL, "chaos.died")


def _change_freeze(where: dict[str, Any]) -> None:
    """Stop this process as `_change_die` would end it, until somebody lets it go on."""
    _signal_at(where, signal.SIGSTOP, "chaos.froze")


def _change_round_trip(where: dict[str, Any]) -> None:
    """End this process by kill -9 `before` or `after` its `hit`-th wait for PostgreSQL: any statement, any commit."""
    from psycopg import AsyncConnection

    inner, waits = AsyncConnection.wait, itertools.count(1)

    async def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        hit = next(waits) == where["hit"]
        if hit and where.get("when", "before") == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await inner(self, *args, **kwargs)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    AsyncConnection.wait = wait  # type: ignore[method-assign]


def _signal_at(where: dict[str, Any], number: signal.Signals, event: str) -> None:
    hits = itertools.count(1)

    def pass_by(point: str, moment: str) -> None:
        if point == where["at"] and moment == where.get("when", "before") and next(hits) == where.get("hit", 1):
            sys.stderr.write(f'{{"event": "{event}", "at": "{point}", "when": "{moment}"}}\n')
            sys.stderr.flush()
            os.kill(os.getpid(), number)

    _watch(pass_by)


def _watch(pass_by: Callable[[str, str], None]) -> None:
    """Call `pass_by` around every effect a worker has outside of itself."""
    from aiokafka import AIOKafkaProducer
    from clickhouse_connect.driver.asyncclient import AsyncClient
    from redis.asyncio.client import Pipeline

    from streams.adapters.batch_transport import BatchConsumer
    from streams.agents.quota import KafkaAnnouncements

    def wrap(owner: Any, name: str, point: Callable[..., str]) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        async def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            where = point(*args, **kwargs)
            pass_by(where, "before")
            result = await inner(self, *args, **kwargs)
            pass_by(where, "after")
            return result

        setattr(owner, name, wrapped)

    wrap(AIOKafkaProducer, "commit_transaction", lambda: "transaction")
    wrap(AsyncClient, "insert", lambda table, *_, **__: f"insert {table}")
    wrap(Pipeline, "execute", lambda *_, **__: "redis")
    wrap(BatchConsumer, "commit_offset", lambda *_: "offset")
    wrap(KafkaAnnouncements, "announce", lambda *_: "announcement")


def _change_plant(name: str) -> None:
    """Put a defect in."""
    PLANTS[name]()


def _forget_identities() -> None:
    """Every event looks new: nothing is ever a duplicate."""
    from core import usage_event
    from streams.domain import tally

    real, numbers = usage_event.event_identity, itertools.count()

    def never_twice(tenant: str, source: str, event_id: str) -> bytes:
        return real(tenant, source, f"{event_id}-{os.getpid()}-{next(numbers)}")

    usage_event.event_identity = tally.event_identity = never_twice


def _commit_early() -> None:
    """The warehouse agent commits its offset before ClickHouse has the rows, and the rows take a moment."""
    from streams import warehouse_lane

    inner = warehouse_lane.WarehouseLane.handle

    async def handle(self: Any, records: list[Any]) -> None:
        await self._commit(records[-1].offset + 1)
        await asyncio.sleep(0.3)
        await inner(self, records)

    warehouse_lane.WarehouseLane.handle = handle  # type: ignore[method-assign]


def _never_refill() -> None:
    """A wiped Redis looks whole."""
    from streams.adapters import redis_quotas

    async def has_all(self: Any, journal_offset: int) -> bool:
        return True

    redis_quotas.RedisQuotas.has_all = has_all  # type: ignore[method-assign]


def _skip_errors() -> None:
    """A sink that does not answer is passed over instead of waited for."""
    from streams import quota_lane, warehouse_lane

    async def once(what: str, call: Callable[[], Any], *, transient: Any, **_: Any) -> Any:
        try:
            return await call()
        except transient:
            return None

    warehouse_lane.until_done = once  # type: ignore[assignment]
    quota_lane.until_done = once  # type: ignore[assignment]


def _drop_letters() -> None:
    """Refused records leave no dead letter."""
    from streams.adapters import kafka_journal

    inner = kafka_journal.KafkaJournal.commit

    async def commit(self: Any, batch: Any) -> None:
        batch.dead_letters.clear()
        await inner(self, batch)

    kafka_journal.KafkaJournal.commit = commit  # type: ignore[method-assign]


def _renew_keys() -> None:
    """Each call to the payment provider has an idempotency key of its own."""
    from uuid import uuid4

    from payments.adapters.stripe_transport import Httpx2Client

    inner = Httpx2Client.request_async

    async def request(self: Any, method: str, url: str, headers: Any, post_data: Any = None) -> Any:
        return await inner(self, method, url, {**headers, "Idempotency-Key": str(uuid4())}, post_data)

    Httpx2Client.request_async = request  # type: ignore[method-assign]


def _number_early() -> None:
    """A number is taken for good before the invoice that bears it is there, which takes a moment."""
    import psycopg

    inner = psycopg.AsyncCursor.execute

    def take(url: str, query: Any, parameters: Any) -> tuple[list[str], Any]:
        with psycopg.connect(url, autocommit=True) as other:
            taken = other.execute(query, parameters)
            return [column.name for column in taken.description or ()], taken.fetchone()

    async def execute(self: Any, query: Any, parameters: Any = None, **kwargs: Any) -> Any:
        if "INTO invoice_series" not in str(query):
            return await inner(self, query, parameters, **kwargs)
        names, values = await asyncio.to_thread(take, self.connection.info.dsn, query, parameters)
        await asyncio.sleep(0.05)
        return await inner(self, "SELECT " + ", ".join(f'%s::bigint AS "{name}"' for name in names), values)

    psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign]


def _give_up_at_once() -> None:
    """A message that its receiver did not take is held to be told."""
    from alerts import deliver_alert
    from alerts.domain.retry import Plan

    def done(attempt: Any, *, attempts: int, now: Any) -> Plan:
        return Plan("sent", now)

    deliver_alert.plan_next = done


PLANTS: dict[str, Callable[[], None]] = {
    "no-dedupe": _forget_identities,
    "early-commit": _commit_early,
    "no-refill": _never_refill,
    "skip-errors": _skip_errors,
    "no-letters": _drop_letters,
    "no-idempotency-key": _renew_keys,
    "number-early": _number_early,
    "give-up": _give_up_at_once,
}

if __name__ == "__main__":
    main()
