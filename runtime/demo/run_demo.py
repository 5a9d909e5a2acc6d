"""Runs the main job from usage to paid invoices on a fresh embedded stack, and checks every figure."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import SystemClock
from core.errors import Fault, InvalidInputError, MeterbookError
from invoicing.commands import request_invoices
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_provider import create_stripe_provider
from payments.set_payment_method import set_payment_method
from runtime import stack
from runtime.demo import observe
from runtime.demo.compare import Check, compare_dead_letters, compare_invoices, compare_payments, compare_usage
from runtime.demo.feeders import FeedPlan, FeedProgress, feed_api, feed_kafka, plan_feed
from runtime.demo.fleet import Fleet, free_port
from runtime.demo.live_view import LiveView, Picture, QuotaLine
from runtime.demo.oracle import Truth, add_up
from runtime.demo.usage import Usage
from runtime.kafka_topics import create_topics
from runtime.migrations import migrate
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant

SETTLE_SECONDS = 90.0
STREAM_WORKERS = ("meter", "quota", "warehouse")
CONSUMER_PROCESSES = (("billing", ("billing",)), ("renderer", ("renderer",)), ("alerts", ("alerts", "rating")))


class DemoFailedError(MeterbookError):
    """The demo did not come to its end."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How the demo runs. `fault` runs beside the feeding, for tests that kill processes."""

    home: Path
    output: Path
    seed: int = 20_261
    duplicates_percent: int = 3
    api_events: int = 3_000
    events_per_second: int = 22_000
    keep: bool = False
    extra_environment: dict[str, str] = field(default_factory=dict)
    fault: Callable[[Fleet, FeedProgress], Any] | None = None


@dataclass
class Outcome:
    """All that a report needs."""

    usage: Usage
    plan: FeedPlan
    truth: Truth
    truths_by_month: dict[str, Truth]
    checks: list[Check]
    invoices: list[dict[str, Any]]
    warehouse: observe.Hourly
    live: observe.Hourly
    alerts: list[str]
    outcomes: dict[str, int]
    seconds: dict[str, float]
    home: Path
    output: Path


class Demo:
    """One run; the parts are methods in the order in which they happen."""

    def __init__(self, usage: Usage, options: DemoOptions, console: Console) -> None:
        self._usage, self._options, self._console = usage, options, console
        self._seconds: dict[str, float] = {}
        self._began = time.monotonic()
        self._truth = add_up(usage.events)
        self._plan = plan_feed(
            usage, seed=options.seed, duplicates_percent=options.duplicates_percent, api_events=options.api_events
        )

    async def run(self) -> Outcome:
        """Run everything; raises `DemoFailedError` or `ProcessDiedError` when it cannot come to its end."""
        async with AsyncExitStack() as closing:
            settings = await self._start_stack(closing)
            standins = self._start_standins(settings, closing)
            fleet = self._start_fleet(settings, standins, closing)
            api_url = f"http://127.0.0.1:{settings.api_port}"
            await self._set_up_tenants(settings)
            async with observe.KafkaWatch(settings) as watch:
                await self._wait_ready(fleet, api_url)
                await self._feed(settings, fleet, standins, watch, api_url)
                checks = await self._check_usage(settings, watch, fleet)
            alerts = await self._gather_alerts(standins, settings)
            if alerts is not None:
                checks.append(alerts)
            invoices = await self._invoice(settings, fleet)
            truths = self._truths_by_month()
            checks += compare_invoices(invoices, self._usage, truths)
            checks += compare_payments(invoices, standins.ledger())
            checks.append(await self._run_again(settings, fleet, len(invoices), len(standins.ledger())))
            warehouse, _ = await asyncio.to_thread(observe.read_warehouse, settings)
            outcomes = await observe.read_metric(
                fleet.members["meter"].metrics_port, "meterbook_events_total", "outcome"
            )
            return Outcome(
                usage=self._usage,
                plan=self._plan,
                truth=self._truth,
                truths_by_month=truths,
                checks=checks,
                invoices=invoices,
                warehouse=warehouse,
                live=await observe.read_live(settings, period_length=13),
                alerts=self._alert_texts(standins),
                outcomes={name: int(value) for name, value in outcomes.items()},
                seconds={**self._seconds, "total": time.monotonic() - self._began},
                home=self._options.home,
                output=self._options.output,
            )

    async def _start_stack(self, closing: AsyncExitStack) -> Settings:
        home, output = self._options.home, self._options.output
        self._say("engines: Kafka, ClickHouse, Redis and PostgreSQL, on loopback, from nothing")
        await asyncio.to_thread(stack.down, home)
        if home.exists():
            shutil.rmtree(home)
        shutil.rmtree(output, ignore_errors=True)
        if not self._options.keep:
            closing.callback(stack.down, home)
        await asyncio.to_thread(stack.up, home, progress=lambda line: self._say(f"  {line}", style="dim"))
        settings = load_settings(home=home, documents_dir=output / "invoices", api_port=free_port())
        await asyncio.to_thread(migrate, settings)
        await create_topics(settings)
        self._mark("engines")
        return settings

    def _start_standins(self, settings: Settings, closing: AsyncExitStack) -> Any:
        try:
            from tests.standins.process import start_standins
        except ImportError:
            raise DemoFailedError(
                "the demo needs a checkout of Meterbook: its payment, Slack and mail stand-ins live in tests/standins"
            ) from None
        webhook = f"http://127.0.0.1:{settings.api_port}/api/v1/webhooks/stripe"
        standins = start_standins(webhook, self._options.home / "standins")
        closing.callback(standins.stop)
        return standins

    def _start_fleet(self, settings: Settings, standins: Any, closing: AsyncExitStack) -> Fleet:
        self._say("processes: meter, quota and warehouse workers, billing, renderer, alerts, API")
        self._environment = {
            "METERBOOK_HOME": str(self._options.home.resolve()),
            "METERBOOK_DOCUMENTS_DIR": str(settings.documents.resolve()),
            "METERBOOK_API_PORT": str(settings.api_port),
            "METERBOOK_ALERT_EMAIL_TO": "billing-team@seller.example",
            "METERBOOK_REGISTRY_REFRESH_SECONDS": "1",
            **standins.settings(),
            **self._options.extra_environment,
        }
        fleet = Fleet(self._options.home / "logs", self._environment)
        closing.callback(fleet.stop)
        for name in STREAM_WORKERS:
            fleet.start(name, "worker", name)
        fleet.start("api", "api")
        for name, consumers in CONSUMER_PROCESSES:
            fleet.start(name, "worker", *consumers)
        return fleet

    async def _set_up_tenants(self, settings: Settings) -> None:
        await apply_files(settings, shipped_files())
        for tenant in self._usage.tenants:
            record = Tenant(
                tenant.tenant_id,
                tenant.name,
                tenant.email,
                tenant.country,
                "USD",
                tenant.address.replace("|", "\n"),
            )
            await add_tenant(
                settings, record, tenant.plan, overrides=tenant.overrides, started_at=self._usage.started_at
            )
        paying = load_settings(**_lower(self._environment), home=settings.home)
        provider = create_stripe_provider(paying)
        try:
            async with create_pool(settings, max_size=1) as pool:
                for tenant in self._usage.tenants:
                    if tenant.pays:
                        await set_payment_method(
                            tenant.tenant_id,
                            "pm_card_visa",
                            store=PostgresPayments(pool),
                            registrar=provider,
                            clock=SystemClock(),
                        )
        finally:
            await provider.close()
        self._say(f"tenants: {', '.join(f'{t.tenant_id} ({t.plan})' for t in self._usage.tenants)}")
        self._mark("tenants")

    async def _wait_ready(self, fleet: Fleet, api_url: str) -> None:
        import httpx2

        async with httpx2.AsyncClient(base_url=api_url) as client:

            async def ready() -> bool:
                try:
                    return bool((await client.get("/ready")).status_code == 200)
                except httpx2.HTTPError:
                    return False

            await self._until("the API is ready", ready, fleet)
        self._mark("processes")

    async def _feed(
        self, settings: Settings, fleet: Fleet, standins: Any, watch: observe.KafkaWatch, api_url: str
    ) -> None:
        plan, progress = self._plan, FeedProgress()
        self._say(
            f"usage: {plan.events_sent:,} events, {plan.duplicates:,} of them duplicates, out of order,"
            f" and {len(self._usage.poison)} that must be refused"
        )

        async def send() -> None:
            await asyncio.gather(
                feed_kafka(
                    settings.kafka_bootstrap,
                    plan.kafka_records,
                    self._usage.poison,
                    progress,
                    events_per_second=self._options.events_per_second,
                ),
                feed_api(api_url, plan, progress),
            )
            progress.finished = True

        tasks = [asyncio.create_task(send())]
        if self._options.fault is not None:
            tasks.append(asyncio.create_task(self._options.fault(fleet, progress)))
        watcher = _Watcher(settings, fleet, standins, watch, plan, progress, self._usage)
        with LiveView(self._console) as view:
            deadline = time.monotonic() + SETTLE_SECONDS + plan.events_sent / self._options.events_per_second
            while True:
                picture = await watcher.look()
                view.show(picture, time.monotonic())
                for task in tasks:
                    if task.done():
                        task.result()
                settled = picture.lag == observe.Lag() and all(task.done() for task in tasks)
                if settled:
                    break
                fleet.check()
                if time.monotonic() > deadline:
                    raise DemoFailedError(f"usage did not settle in time; behind: {picture.lag}")
                await asyncio.sleep(0.25)
        self._mark("usage")

    async def _check_usage(self, settings: Settings, watch: observe.KafkaWatch, fleet: Fleet) -> list[Check]:
        expected = self._truth.by_hour
        warehouse, _ = await asyncio.to_thread(observe.read_warehouse, settings)
        live = await observe.read_live(settings, period_length=13)
        distinct = await asyncio.to_thread(observe.count_raw_events, settings)
        return [
            compare_usage("ClickHouse rollups equal the distinct events", warehouse, expected),
            compare_usage("Redis equals the distinct events", live, expected),
            Check(
                "raw events in ClickHouse are the distinct events",
                distinct == len(self._usage.events),
                f"{distinct:,} kept of {self._plan.events_sent:,} sent",
            ),
            compare_dead_letters(await watch.dead_letters(), self._usage),
        ]

    async def _gather_alerts(self, standins: Any, settings: Settings) -> Check | None:
        expected = await asyncio.to_thread(_expected_alerts, settings, self._usage, self._truth)
        if not expected:
            return None
        wanted = len(expected)

        async def arrived() -> bool:
            return len(standins.slack_messages()) >= wanted and len(standins.mails()) >= wanted

        await self._until("the alerts have arrived", arrived, None, give_up=False)
        slack, mails = len(standins.slack_messages()), len(standins.mails())
        return Check(
            "each threshold was told once, by Slack and by mail",
            slack == mails == wanted,
            f"{slack} to Slack, {mails} by mail, {wanted} thresholds reached",
        )

    async def _invoice(self, settings: Settings, fleet: Fleet) -> list[dict[str, Any]]:
        self._say(f"period over: invoicing {', '.join(self._usage.months)}")
        for month in self._usage.months:
            await request_invoices(settings, month, None, wait_seconds=60)

        async def done() -> bool:
            invoices = await asyncio.to_thread(observe.read_billing, settings)
            return len(invoices) >= self._invoices_expected() and all(
                i["status"] == "paid" and i["location"] for i in invoices
            )

        await self._until("invoices are issued, printed and paid", done, fleet, give_up=False)
        self._mark("invoices")
        return await asyncio.to_thread(observe.read_billing, settings)

    async def _run_again(self, settings: Settings, fleet: Fleet, invoices: int, charges: int) -> Check:
        for month in self._usage.months:
            await request_invoices(settings, month, None, wait_seconds=60)
        async with observe.KafkaWatch(settings) as watch:

            async def handled() -> bool:
                return await watch.invoicing_behind() == 0

            await self._until("the second run is handled", handled, fleet)
        again = await asyncio.to_thread(observe.read_billing, settings)
        return Check("the same run again bills nothing new", len(again) == invoices, f"still {len(again)} invoices")

    def _truths_by_month(self) -> dict[str, Truth]:
        return {
            month: add_up([e for e in self._usage.events if e.occurred_at.strftime("%Y-%m") == month])
            for month in self._usage.months
        }

    def _invoices_expected(self) -> int:
        metered = {(e.tenant, e.occurred_at.strftime("%Y-%m")) for e in self._usage.events}
        fixed = {(t.tenant_id, self._usage.months[0]) for t in self._usage.tenants if t.plan == "airgapped"}
        return len(metered | fixed)

    def _alert_texts(self, standins: Any) -> list[str]:
        return [message.get("text", "") for message in standins.slack_messages()]

    async def _until(self, what: str, done: Any, fleet: Fleet | None, *, give_up: bool = True) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not await done():
            if fleet is not None:
                fleet.check()
            if time.monotonic() > deadline:
                if give_up:
                    raise DemoFailedError(f"waited {SETTLE_SECONDS:.0f} s in vain until {what}")
                return
            await asyncio.sleep(0.25)

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(line, style=style, highlight=False, soft_wrap=True)

    def _mark(self, step: str) -> None:
        self._seconds[step] = time.monotonic() - self._began - sum(self._seconds.values())


class _Watcher:
    """Takes pictures of a running demo."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        standins: Any,
        watch: observe.KafkaWatch,
        plan: FeedPlan,
        progress: FeedProgress,
        usage: Usage,
    ) -> None:
        self._settings, self._fleet, self._standins, self._watch = settings, fleet, standins, watch
        self._plan, self._progress, self._usage = plan, progress, usage
        self._limits = observe.read_limits(settings)

    async def look(self) -> Picture:
        """Return what is to be seen now."""
        meter = self._fleet.members.get("meter")
        outcomes = await observe.read_metric(meter.metrics_port, "meterbook_events_total", "outcome") if meter else {}
        used = await observe.read_live(self._settings, period_length=7)
        month = self._usage.months[0]
        quotas = [
            QuotaLine(tenant, name, used.get((tenant, name, month), Decimal(0)), limit)
            for (tenant, name), limit in sorted(self._limits.items())
            if used.get((tenant, name, month))
        ]
        return Picture(
            sent=self._progress.sent,
            to_send=self._plan.events_sent,
            by_api=self._progress.by_api,
            outcomes={name: int(value) for name, value in outcomes.items()},
            lag=await self._watch.lag(),
            quotas=quotas,
            alerts=[message.get("text", "") for message in await asyncio.to_thread(self._standins.slack_messages)],
        )


def _expected_alerts(settings: Settings, usage: Usage, truth: Truth) -> list[tuple[str, str, int]]:
    limits = observe.read_limits(settings)
    return [
        (tenant, meter, percent)
        for (tenant, meter), limit in limits.items()
        for percent in settings.alert_thresholds_percent
        for month in usage.months[:1]
        if truth.month(tenant, meter) * 100 >= limit * percent
    ]


def _lower(environment: dict[str, str]) -> dict[str, str]:
    wanted = ("METERBOOK_STRIPE_API_BASE", "METERBOOK_STRIPE_API_KEY")
    return {name.removeprefix("METERBOOK_").lower(): environment[name] for name in wanted}


def check_home(home: Path) -> None:
    """Refuse to wipe a folder that is not an earlier demo's; raises `InvalidInputError` (`not_a_demo_home`)."""
    if home.exists() and any(home.iterdir()) and not (home / "stack.json").exists():
        raise InvalidInputError(
            [Fault("not_a_demo_home", f"{home} holds something else; the demo wipes its folder", "--home")]
        )
