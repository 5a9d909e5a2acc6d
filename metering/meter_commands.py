"""`meterbook meters`: what is counted, and filling the past of a meter that was added later."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from core.clock import SystemClock
from core.errors import NotFoundError
from core.meters import Meter
from metering.adapters.clickhouse_raw_events import ClickHouseRawEvents
from metering.adapters.kafka_parts import KafkaPartSender
from metering.backfill_meter import Filled, OverlappingCorrectionsError, RawEvents, backfill_meter, missed_corrections
from runtime.clickhouse import connect_clickhouse
from runtime.logs import configure_logs
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from runtime.stored_meters import read_meters

app = typer.Typer(help="Meters: what is counted.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_LOOK_AGAIN_SECONDS = 0.5


@app.command(name="list")
def list_meters(as_json: AsJson = False) -> None:
    """List all meters."""
    meters = asyncio.run(_read_meters(load_settings()))
    if as_json:
        documents = [
            {
                "meter": meter.meter_id,
                "unit": meter.unit,
                "event_type": meter.event_type,
                "aggregation": meter.aggregation,
                "value_property": meter.value_property,
                "dimensions": list(meter.dimensions),
                "weight_per": meter.weight_per,
                "allowed_lateness_seconds": meter.allowed_lateness_seconds,
            }
            for meter in meters.values()
        ]
        typer.echo(json.dumps({"data": documents}))
        return
    for meter in meters.values():
        split = f" by {', '.join(meter.dimensions)}" if meter.dimensions else ""
        of = f" of {meter.value_property}" if meter.value_property else ""
        typer.echo(f"{meter.meter_id:<24} {meter.aggregation}{of}{split}, in {meter.unit}, from {meter.event_type}")


@app.command()
def backfill(
    meter: Annotated[str, typer.Argument(help="The meter that was added later.")],
    wait: Annotated[int, typer.Option(min=0, help="Wait so many seconds until it is counted and stored.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Let a meter count the raw events from before it was added; doing so again changes nothing."""
    settings = load_settings()
    configure_logs(settings, "meters")
    filled = asyncio.run(fill_meter(settings, meter, wait_seconds=wait))
    if as_json:
        documents = [
            {
                "partition": share.partition,
                "before_offset": share.before,
                "events": share.events,
                "refused": share.refused,
                "records": share.parts,
            }
            for share in filled
        ]
        typer.echo(json.dumps({"meter": meter, "data": documents}))
        return
    for share in filled:
        refused = "".join(f", {count} refused as {code}" for code, count in sorted(share.refused.items()))
        typer.echo(f"partition {share.partition}: {share.events} events in {share.parts} records{refused}")
    if not filled:
        typer.echo("nothing to fill: the meter is counted from the beginning")


async def fill_meter(settings: Settings, meter_id: str, *, wait_seconds: int) -> list[Filled]:
    """Fill the meter's past, wait until it is stored, and look for corrections that came in between.

    Raises `NotFoundError`, `MeterNotCountedError`, `OverlappingCorrectionsError`.
    """
    meter = (await _read_meters(settings)).get(meter_id)
    if meter is None:
        raise NotFoundError(f"no meter {meter_id[:80]!r}")
    client = await asyncio.to_thread(connect_clickhouse, settings)
    try:
        raw = ClickHouseRawEvents(client)
        filled = await backfill_meter(
            meter,
            raw=raw,
            sender=KafkaPartSender(settings),
            now=SystemClock().now(),
            max_bytes=settings.event_max_bytes,
        )
        if wait_seconds and await _is_stored(raw, filled, wait_seconds):
            missed = await missed_corrections(meter, filled, raw=raw)
            if missed:
                raise OverlappingCorrectionsError(
                    f"{len(missed)} corrections came while {meter_id} was being filled, and it still counts what they"
                    f" took out: {', '.join(missed[:20])}"
                )
        return filled
    finally:
        client.close()


async def _is_stored(raw: RawEvents, filled: list[Filled], wait_seconds: int) -> bool:
    waiting = {share.partition: share.last_offset for share in filled if share.last_offset is not None}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    while waiting and loop.time() < deadline:
        for partition, last in list(waiting.items()):
            if await asyncio.to_thread(raw.stored_up_to, partition) > last:
                del waiting[partition]
        if waiting:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    if waiting:
        names = ", ".join(map(str, waiting))
        typer.echo(f"not yet stored on partitions {names}: run it again later to look for corrections", err=True)
    return not waiting


async def _read_meters(settings: Settings) -> dict[str, Meter]:
    async with create_pool(settings, max_size=1) as pool, pool.connection() as connection:
        return await read_meters(connection)
