"""The desk of quotas: everything that is asked about them, in one value that entry points hand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

from core.calendar import Calendar
from core.clock import Clock, SystemClock
from core.errors import Fault, InvalidInputError, UnavailableError
from core.meters import Meter, Registry
from quotas.adapters.postgres_entitlements import PostgresEntitlements
from quotas.adapters.postgres_reservations import PostgresReservations
from quotas.adapters.redis_reservations import RedisReservations
from quotas.adapters.redis_view import RedisView
from quotas.adapters.usage_history import ClickHouseHistory
from quotas.check_entitlement import Standing, find_standing
from quotas.domain.access import LIMIT_CODE, NOT_GIVEN_CODE, check_access, find_refusal
from quotas.domain.entitlement import Entitlement
from quotas.domain.reading import Reading
from quotas.domain.reservation import HoldRequest, Reservation
from quotas.domain.span import Span, periods_of, resolve_span
from quotas.ports import EntitlementBooks, LiveView, ReservationBooks, ReservationDesk, TenantBook, UsageHistory
from quotas.read_quotas import read_quotas
from quotas.reserve_usage import Held, commit_reservation, hold_usage, release_reservation
from runtime.postgres import Pool
from runtime.redis import connect_redis
from runtime.settings import Settings


@dataclass(frozen=True)
class QuotaDesk:
    """Reads live usage, answers for entitlements, keeps grants and reservations."""

    view: LiveView
    history: UsageHistory
    entitlements: EntitlementBooks
    reservations: ReservationBooks
    decisions: ReservationDesk
    clock: Clock
    # Whether an account that is past due, but not suspended yet, may use nothing more.
    past_due_is_refused: bool = False

    def span(self, text: str, calendar: Calendar) -> Span:
        """Return the span that a text names now; raises `InvalidInputError`."""
        return resolve_span(text, calendar, self.clock.now())

    async def usage(self, tenant: str, meters: Sequence[Meter], span: Span, calendar: Calendar) -> list[Reading]:
        """Return one reading per meter."""
        return await read_quotas(self.view, tenant, meters, span, calendar=calendar, now=self.clock.now())

    async def standing(self, tenant: str, book: TenantBook, entitlement: Entitlement, registry: Registry) -> Standing:
        """Return where a metered entitlement of the tenant's book stands."""
        feature = entitlement.feature
        return await find_standing(
            entitlement,
            book.grants.get(feature.feature_id, ()),
            tenant=tenant,
            meter=registry.by_id[feature.meter_id or ""],
            calendar=registry.calendar_of(tenant),
            view=self.view,
            history=self.history,
            now=self.clock.now(),
        )

    def refusal(
        self,
        book: TenantBook,
        entitlement: Entitlement,
        standing: Standing | None = None,
        reserved: Decimal | None = None,
    ) -> str | None:
        """Return the code of why a feature may not be used now, None if it may; `standing` of a metered one."""
        refusal = find_refusal(book.account, past_due_is_refused=self.past_due_is_refused)
        if refusal is not None:
            return refusal
        if standing is not None:
            return None if standing.has_room(reserved or Decimal(0)) else LIMIT_CODE
        has_it = bool(entitlement.value) if entitlement.feature.kind == "boolean" else entitlement.value is not None
        return None if has_it else NOT_GIVEN_CODE

    async def reserved(self, tenant: str, meter: str) -> Decimal | None:
        """Return what is reserved of a meter, None while that cannot be known."""
        try:
            return (await self.decisions.look(tenant, meter, ())).held
        except UnavailableError:
            return None

    async def hold(self, request: HoldRequest, registry: Registry) -> Held:
        """Hold usage against the entitlement of its meter; see `reserve_usage.hold_usage` for the refusals."""
        meter = registry.by_id[request.meter_id]
        calendar = registry.calendar_of(request.tenant_id)
        book = await self.entitlements.of_tenant(request.tenant_id)
        entitlement = book.of_meter(meter.meter_id)
        if meter.aggregation in ("sum", "count"):
            periods = periods_of(entitlement.span(calendar, self.clock.now()), meter.aggregation)
        else:
            periods = ()
        return await hold_usage(
            request,
            meter=meter,
            periods=periods,
            ceiling=await self._ceiling(request.tenant_id, book, entitlement, registry),
            check_account=lambda: check_access(book.account, past_due_is_refused=self.past_due_is_refused),
            books=self.reservations,
            desk=self.decisions,
            clock=self.clock,
        )

    async def commit(self, reservation_id: str, actual: Decimal, *, tenant: str, settle_seconds: int) -> Reservation:
        """Say how much of a hold was used."""
        return await commit_reservation(
            reservation_id,
            actual,
            tenant=tenant,
            settle_seconds=settle_seconds,
            books=self.reservations,
            desk=self.decisions,
            clock=self.clock,
        )

    async def release(self, reservation_id: str, *, tenant: str) -> Reservation:
        """Give a hold up."""
        return await release_reservation(reservation_id, tenant=tenant, books=self.reservations, desk=self.decisions)

    async def _ceiling(
        self, tenant: str, book: TenantBook, entitlement: Entitlement, registry: Registry
    ) -> Decimal | None:
        """Return up to where a hard limit and its grants go, None where nothing stops."""
        if not entitlement.hard or entitlement.limit is None:
            return None
        if not book.grants.get(entitlement.feature.feature_id):
            return entitlement.limit
        return (await self.standing(tenant, book, entitlement, registry)).capacity


def check_metered(entitlement: Entitlement, registry: Registry) -> Meter:
    """Return a metered entitlement's meter; raises `InvalidInputError` (`not_metered`)."""
    meter = registry.by_id.get(entitlement.feature.meter_id or "")
    if meter is None:
        raise InvalidInputError([Fault("not_metered", f"{entitlement.feature.feature_id} is not metered", "feature")])
    return meter


@asynccontextmanager
async def open_quota_desk(settings: Settings, pool: Pool, clock: Clock | None = None) -> AsyncIterator[QuotaDesk]:
    """Open the desk on the settings' engines; none of them is asked before it is needed."""
    async with AsyncExitStack() as stack:
        redis = connect_redis(settings.redis, timeout_s=2, connect_timeout_s=1)
        stack.push_async_callback(redis.aclose)
        history = ClickHouseHistory(settings)
        stack.push_async_callback(history.close)
        books = PostgresReservations(pool)
        yield QuotaDesk(
            RedisView(redis, settings.usage_partitions),
            history,
            PostgresEntitlements(pool),
            books,
            RedisReservations(redis, books, settings.usage_partitions),
            clock or SystemClock(),
            past_due_is_refused=settings.past_due_access == "refused",
        )
