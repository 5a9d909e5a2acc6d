"""What rows about money add to the world: the stand-ins, tenants that owe, and billing's own processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from catalogues.commands import apply_files
from catalogues.load_catalogue import CatalogueFile
from core.clock import SystemClock
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_provider import StripeProvider
from payments.set_payment_method import set_payment_method
from runtime.postgres import create_pool
from runtime.stack import ports
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.chaos import observed
from tests.chaos.fleet import ROOT, Worker
from tests.chaos.oracle import Almanac
from tests.chaos.proxy import Proxy
from tests.chaos.row import HEAL_SECONDS, Row
from tests.chaos.traffic import RUN
from tests.standins.process import Standins, StandinsError, start_standins

T = TypeVar("T")
R = TypeVar("R")
METER = "chaos_runs"
PLAN = f"""
plans:
  chaos:
    name: Chaos
    currency: EUR
    charges:
      - {{id: base, name: Base fee, model: flat, recurring: {{interval: month}}, flat_amount: "10"}}
      - {{id: runs, name: Runs, meter: {METER}, model: per_unit, unit_amount: "0.125"}}
"""
BASE, PRICE = Decimal(10), Decimal("0.125")
GOOD_CARD, BAD_CARD = "pm_card_visa", "pm_card_chargeCustomerFail"
# Of a consumer group that lost a member by kill -9, the others wait for so long instead of ten seconds.
_GROUP_SESSION_SECONDS = 2.0
_PATIENCE_SECONDS = 90.0
_AT_ONCE = 8


class Billing:
    """Stand-ins and billing processes of one row; made by `open_billing`."""

    def __init__(self, row: Row, standins: Standins, slack: Proxy, smtp: Proxy) -> None:
        self.row, self.standins, self.slack, self.smtp = row, standins, slack, smtp
        self.rng = random.Random(row.seed * 1_000 + int(row.verdict.row[1:]))
        self.documents = standins.log_file.parent / "documents"
        self.base = ""
        self._port = 0
        self.started: list[Worker] = []
        self._tenants = itertools.count(1)
        slack_parts = urlsplit(standins.slack_url)
        self.environment = {
            **standins.settings(),
            # Messages leave by way of proxies, so that a receiver can be away.
            "METERBOOK_SLACK_WEBHOOK_URL": f"http://127.0.0.1:{slack.port}{slack_parts.path}",
            "METERBOOK_SMTP_URL": f"smtp://127.0.0.1:{smtp.port}",
            "METERBOOK_ALERT_EMAIL_TO": "ops@acme.invalid",
            "METERBOOK_DOCUMENTS_DIR": str(self.documents),
        }

    @property
    def month(self) -> str:
        """The last month, which is over and to be invoiced."""
        return f"{self.month_start:%Y-%m}"

    @property
    def month_start(self) -> datetime:
        """The beginning of the last month."""
        return (_this_month() - timedelta(days=1)).replace(day=1)

    def start(self, *consumers: str, name: str = "", plan: dict[str, Any] | None = None, **environment: str) -> Worker:
        """Start `meterbook worker CONSUMERS...`, supervised."""
        return self._start(name or consumers[0], ("worker", *consumers), plan, environment)

    async def serve(self, plan: dict[str, Any] | None = None) -> None:
        """Start an API of this row, wait until it is ready, and have the provider send its webhooks there."""
        self._port = self._port or ports.pick({proxy.port for proxy in self.row.world.proxies.values()})
        self.base = f"http://127.0.0.1:{self._port}"
        self._start("money-api", ("api",), plan, {"METERBOOK_API_PORT": str(self._port)})
        async with httpx2.AsyncClient(timeout=5) as client:

            async def ready() -> bool:
                try:
                    return (await client.get(f"{self.base}/ready")).status_code == 200
                except httpx2.HTTPError:
                    return False

            await self.row.wait_for(ready, "the API to be ready", HEAL_SECONDS)
        self.standins.set_webhooks(url=f"{self.base}/api/v1/webhooks/stripe", attempts_max=10_000)

    def _start(
        self, name: str, command: tuple[str, ...], plan: dict[str, Any] | None, environment: dict[str, str]
    ) -> Worker:
        changes = {"session_s": None, "group_session_s": _GROUP_SESSION_SECONDS, **(plan or {})}
        worker = self.row.fleet.start(name, *command, plan=changes, **{**self.environment, **environment})
        self.started.append(worker)
        return worker

    async def end(self, *names: str) -> None:
        """Ask this row's processes of those names (all if none is given) to end, which they must do in order."""
        mine = {worker.name for worker in self.started}
        leaving = [worker for name in sorted(set(names) or mine) for worker in self.row.fleet.running(name)]

        async def begun() -> bool:
            # Before that nothing is there that could end in order.
            return all(worker.logged("consumer.starting") for worker in leaving)

        await self.row.wait_for(begun, "all processes to have begun", HEAL_SECONDS)
        told = await asyncio.gather(
            *(asyncio.to_thread(self.row.fleet.terminate, worker, _PATIENCE_SECONDS) for worker in leaving)
        )
        for worker, (code, seconds) in zip(leaving, told, strict=True):
            self.row.must(code == 0, f"{worker.name} ended with {code} after {seconds:.1f} s when asked to")

    async def add_tenants(self, count: int, card: str | None = None) -> list[str]:
        """Register tenants of the plan, since before the last month; `card` is how they pay."""
        world = self.row.world
        await apply_files(world.settings, [CatalogueFile("chaos.yaml", PLAN.encode())])
        names = [f"{self.row.verdict.row.lower()}-{self.row.seed}-{next(self._tenants)}" for _ in range(count)]
        since = self.month_start - timedelta(days=40)

        async def add(name: str) -> None:
            record = Tenant(name, name, f"{name}@example.com", "DE", "EUR")
            await add_tenant(world.settings, record, "chaos", overrides={}, started_at=since)
            world.almanacs[name] = Almanac()

        await _some_at_once(add, names)
        if card is not None:
            await self._save_methods(names, card)
        self.row.tenants += names
        return names

    async def _save_methods(self, tenants: list[str], card: str) -> None:
        provider = StripeProvider(self.standins.stripe_api_key, self.standins.stripe_url)
        async with create_pool(self.row.world.settings) as pool:
            store = PostgresPayments(pool)

            async def save(tenant: str) -> None:
                await set_payment_method(tenant, card, store=store, registrar=provider, clock=SystemClock())

            await _some_at_once(save, tenants)
        await provider.close()

    async def use(self, tenants: list[str], middle: datetime, *, most: int = 40) -> None:
        """Send usage of every tenant on the day after `middle`, and wait until it is counted."""
        traffic = self.row.traffic(tenants)
        await self.row.send(
            [
                traffic.single(
                    traffic.event(tenant, kind=RUN, at=middle + timedelta(seconds=traffic.rng.random() * 86_400))
                )
                for tenant in tenants
                for _ in range(traffic.rng.randrange(1, most))
            ]
        )
        await self.row.caught_up()

    async def use_last_month(self, tenants: list[str]) -> None:
        """Send usage of the last month."""
        await self.use(tenants, _this_month() - timedelta(days=12))

    async def sell(self, sales: Iterable[tuple[str, Decimal, str]]) -> list[dict[str, Any]]:
        """Invoice (tenant, amount, key) over HTTP, each until it is accepted; the key makes repetition harmless."""
        headers = {"content-type": "application/json"}
        async with httpx2.AsyncClient(timeout=20) as client:

            async def one(sale: tuple[str, Decimal, str]) -> dict[str, Any]:
                tenant, amount, key = sale
                body = {"tenant_id": tenant, "items": [{"description": "Setup", "unit_amount": str(amount)}]}
                deadline = time.monotonic() + _PATIENCE_SECONDS
                said = ""
                while time.monotonic() < deadline:
                    try:
                        response = await client.post(
                            f"{self.base}/api/v1/invoices",
                            content=json.dumps(body),
                            headers={**headers, "idempotency-key": key},
                        )
                    except httpx2.HTTPError as error:
                        said = repr(error)
                        await asyncio.sleep(0.2)
                        continue
                    if response.status_code in (200, 201):
                        made: dict[str, Any] = response.json()["data"][0]
                        return made
                    said = f"{response.status_code} {response.text[:300]}"
                    self.row.must(response.status_code == 503, f"the API answered a sale with {said}")
                    await asyncio.sleep(0.2)
                self.row.must(False, f"the sale {key} was not accepted: {said}")
                return {}

            return await _some_at_once(one, list(sales))

    def amounts(self, tenants: Sequence[str], count: int, mark: str) -> list[tuple[str, Decimal, str]]:
        """Draw sales for `sell`: tenants in turn, amounts from the seed, keys that name them."""
        return [
            (
                tenants[number % len(tenants)],
                Decimal(self.rng.randint(100, 9_999_999)) / 100,
                f"{self.row.verdict.row}-{self.row.seed}-{mark}-{number}",
            )
            for number in range(count)
        ]

    async def run_until_done(self, tries: int = 20) -> Any:
        """Run `meterbook invoice run` of the last month, again while it fails, as whoever runs it would."""
        for number in range(tries):
            done = await asyncio.to_thread(self.meterbook, "invoice", "run", "--period", self.month, "--json")
            if done.returncode == 0:
                return json.loads(done.stdout.strip().splitlines()[-1])
            if number:
                await asyncio.sleep(0.5)
        self.row.must(False, f"the invoice run failed {tries} times: {done.stderr[-1_000:]}")
        return {"requested": []}

    def meterbook(self, *command: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own and wait for it."""
        return subprocess.run(
            [sys.executable, "-m", "runtime", *command],
            env=self.command_environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def command_environment(self) -> dict[str, str]:
        """Return the environment of a command beside the workers."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
        return {**own, "PYTHONPATH": str(Path(ROOT)), **self.row.fleet.environment, **self.environment}


@contextlib.asynccontextmanager
async def open_billing(row: Row) -> AsyncIterator[Billing]:
    """Start the stand-ins; at the end ask the row's processes to end, or end them if the row broke off."""
    folder = row.world.folder / f"{row.verdict.row}-{row.seed}-{time.monotonic_ns()}"
    standins = await asyncio.to_thread(_start_standins, folder)
    taken = {proxy.port for proxy in row.world.proxies.values()}
    slack = Proxy(ports.pick(taken), urlsplit(standins.slack_url).port or 0)
    smtp = Proxy(ports.pick({*taken, slack.port}), urlsplit(standins.smtp_url).port or 0)
    billing = Billing(row, standins, slack, smtp)
    for stage in ("payments", "renderer"):
        await observed.skip(row.world.urls.kafka, stage)  # what earlier rows left unread is none of this one's
    try:
        yield billing
        await billing.end()
    finally:
        row.fleet.discard(*{worker.name for worker in billing.started}, "none")
        slack.close()
        smtp.close()
        await asyncio.to_thread(standins.stop)


def _start_standins(folder: Path, tries: int = 4) -> Standins:
    """Start them; again where a busy machine took longer than they are waited for."""
    for number in range(1, tries):
        with contextlib.suppress(StandinsError):
            return start_standins(None, folder / str(number))
    return start_standins(None, folder / str(tries))


async def _some_at_once(work: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
    """Do the work for every item, a few at once; results in the items' order."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> R:
        async with turn:
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))


def _this_month() -> datetime:
    return datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
