"""Worker of anomaly alerts: judges each hour of usage when it has closed. `meterbook worker anomalies`.

It claims for the channels that its settings name, so they must be those of the `alerts` worker, which delivers.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import psycopg
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import Counter
from psycopg_pool import PoolTimeout

from alerts.adapters.clickhouse_usage import ClickHouseUsage
from alerts.adapters.postgres_anomalies import PostgresAnomalies
from alerts.consumer import channel_names
from alerts.watch_anomalies import watch_anomalies
from core.clock import SystemClock
from core.meters import Meter
from runtime.alert_rules import AlertRulesCache
from runtime.postgres import Pool, create_pool
from runtime.settings import Settings
from runtime.stored_meters import read_meters

_POLL_SECONDS = 15.0
# Only totals that add up over windows are judged: the `latest` or `max` of an hour does not say how much was used.
_JUDGED = frozenset({"sum", "count", "average"})
# Hours of four weeks of all tenants are read in so many parts.
_PARTS = 8
_ALERTS = Counter("meterbook_anomaly_alerts_total", "Stretches of unusual usage that were alerted", ["meter"])
log = structlog.get_logger()


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Judge closed hours until `stop` is set; several may run at once, an outage of a store is waited out."""
    usage, clock = ClickHouseUsage(settings), SystemClock()
    try:
        async with create_pool(settings, max_size=3) as pool:
            rules = AlertRulesCache(pool, settings.alert_thresholds_percent, settings.registry_refresh_seconds)
            states = PostgresAnomalies(pool)
            while not stop.is_set():
                try:
                    watermark = await usage.watermark()
                    for meter in await _meters(pool) if watermark is not None else ():
                        assert isinstance(watermark, datetime)
                        alerts = await watch_anomalies(
                            meter,
                            watermark,
                            rules=await rules.get(),
                            usage=usage,
                            states=states,
                            channels=channel_names(settings),
                            clock=clock,
                            parts=_PARTS,
                        )
                        if alerts:
                            _ALERTS.labels(meter.meter_id).inc(alerts)
                            log.info("usage.anomalies", meter=meter.meter_id, alerts=alerts)
                except (OSError, ClickHouseError, psycopg.Error, PoolTimeout, TimeoutError) as error:
                    log.warning("anomalies.waiting", error=repr(error)[:300])
                try:
                    await asyncio.wait_for(stop.wait(), _POLL_SECONDS)
                except TimeoutError:
                    continue
    finally:
        await usage.close()


async def _meters(pool: Pool) -> list[Meter]:
    async with pool.connection() as connection:
        meters = await read_meters(connection)
    return [meter for meter in meters.values() if meter.aggregation in _JUDGED]
