"""What payments need as time goes by: `meterbook worker payment-upkeep`. Several may run; each thing is done once.

Every few seconds payers are told where to authenticate and open outcomes are looked up; once a day the providers'
events are swept. Rows are locked or keyed by their cause, so two workers at once only do some work in vain.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from core.clock import Clock, SystemClock
from core.errors import UnavailableError
from payments.adapters.action_mail import ActionMail, check_action_texts
from payments.adapters.postgres_figures import read_figures
from payments.adapters.postgres_store import PostgresPayments
from payments.ask_payers import give_up_waiting, tell_payers
from payments.close_pending_payments import close_pending_payments
from payments.open_providers import EVENT_HISTORY, Providers, open_providers
from payments.ports import PayerNotice
from payments.remind_payers import remind_payers
from payments.report_figures import report_figures
from payments.sweep_provider_events import SWEEP_EVERY, is_sweep_due, sweep_provider_events
from runtime.postgres import create_pool
from runtime.settings import Settings

_PAUSE_SECONDS = 10.0
# Figures are for dashboards and alerts that wait for minutes.
_FIGURES_EVERY = timedelta(minutes=1)
log = structlog.get_logger()


class Upkeep:
    """One round of upkeep over all providers."""

    def __init__(
        self,
        store: PostgresPayments,
        providers: Providers,
        notice: PayerNotice | None,
        time_to_act: timedelta,
        clock: Clock,
    ) -> None:
        self._store, self._providers, self._notice = store, providers, notice
        self._time_to_act, self._clock = time_to_act, clock

    async def work_once(self) -> None:
        """Do everything that is due now; an outage of one provider leaves the rest."""
        for provider in self._providers.with_actions:
            if self._notice is not None:
                await tell_payers(
                    store=self._store,
                    payers=self._store,
                    provider=provider,
                    notice=self._notice,
                    time_to_act=min(
                        self._time_to_act, self._providers.action_limits.get(provider.name, self._time_to_act)
                    ),
                    clock=self._clock,
                )
                await remind_payers(
                    store=self._store, payers=self._store, provider=provider, notice=self._notice, clock=self._clock
                )
            await give_up_waiting(store=self._store, provider=provider, clock=self._clock)
        await close_pending_payments(store=self._store, providers=self._providers.charging, clock=self._clock)
        for source in self._providers.event_sources:
            if await is_sweep_due(source.name, store=self._store, clock=self._clock):
                history = EVENT_HISTORY.get(source.name, SWEEP_EVERY)
                try:
                    await sweep_provider_events(
                        source=source, inbox=self._store, store=self._store, history=history, clock=self._clock
                    )
                except UnavailableError as error:
                    log.warning("events.not_swept", provider=source.name, error=str(error)[:300])


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Keep payments up until `stop` is set; an outage of the store is waited out."""
    check_action_texts()
    notice = ActionMail(settings.smtp_url, sender=settings.payment_email_from) if settings.smtp_url else None
    time_to_act = timedelta(hours=settings.payment_action_hours)
    if notice is None or settings.payment_return_url is None:
        log.warning("upkeep.no_links", reason="payers are told nothing without SMTP_URL and PAYMENT_RETURN_URL")
    async with open_providers(settings) as providers, create_pool(settings, max_size=2) as pool:
        clock = SystemClock()
        upkeep = Upkeep(PostgresPayments(pool), providers, notice, time_to_act, clock)
        figures_at = clock.now()
        while not stop.is_set():
            try:
                if clock.now() >= figures_at:
                    report_figures(await read_figures(pool, clock.now()))
                    figures_at = clock.now() + _FIGURES_EVERY
                await upkeep.work_once()
            except (OperationalError, PoolTimeout, OSError, UnavailableError) as error:
                log.warning("upkeep.waiting", error=str(error), retry_in_seconds=_PAUSE_SECONDS)
            try:
                await asyncio.wait_for(stop.wait(), _PAUSE_SECONDS)
            except TimeoutError:
                continue
