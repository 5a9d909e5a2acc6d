"""Holds, commits and releases usage, so that nothing promised is ever forgotten.

A hold is decided by Redis, written down in the books, and looked at once more in Redis before it is promised: a wipe
before the last look is noticed by it, and after a wipe that comes later the books tell Redis. Commits are written down
first. A commit is for at most what was held; the rest is a hold of its own, for an event of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from core.clock import Clock
from core.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from core.meters import Meter
from core.quantity import scale_quantity
from quotas.domain.reservation import (
    SETTLE_SECONDS_MAX,
    SOURCE,
    ExceedsHoldError,
    HoldRequest,
    OtherRequestError,
    QuotaExceededError,
    Reservation,
    ReservationOverError,
    TooManyReservationsError,
    check_hold,
    plain,
)
from quotas.ports import Decision, ReservationBooks, ReservationDesk

_SKEW_SECONDS = 30
RESERVABLE: frozenset[str] = frozenset({"sum", "count"})


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation and what was decided about it."""

    reservation: Reservation
    decision: Decision


async def hold_usage(
    request: HoldRequest,
    *,
    meter: Meter,
    periods: tuple[str, ...],
    ceiling: Decimal | None,
    books: ReservationBooks,
    desk: ReservationDesk,
    clock: Clock,
    check_account: Callable[[], None] = lambda: None,
) -> Held:
    """Hold an amount against the live total of `periods`, within the ceiling (None: no hard limit).

    The same key again gives the same reservation. `check_account` refuses new ones of accounts that may use nothing.
    Raises `QuotaExceededError`, `TooManyReservationsError`, `OtherRequestError`, `ReservationOverError`,
    `InvalidInputError`, `UnavailableError`.
    """
    check_hold(request)
    if meter.aggregation not in RESERVABLE:
        raise InvalidInputError(
            [Fault("not_reservable", f"a total of {meter.aggregation} cannot be reserved", "meter")]
        )
    reservation = await _known(request, books)
    if reservation is None:
        check_account()
        now = clock.now()
        # Redis' clock decides when it ends; what is written down must not end before.
        expires_at = now + timedelta(seconds=request.ttl_seconds + _SKEW_SECONDS)
        name = request.reservation_id
        reservation = Reservation(
            name, request.tenant_id, request.meter_id, request.amount, "held", request.source or SOURCE,
            request.event_id or name, request.sha256, now, expires_at,
        )  # fmt: skip
        # Most refusals need no more than this; nothing is promised yet.
        _check(await desk.hold(reservation, request.ttl_seconds, periods, ceiling), request, meter, ceiling)
        try:
            reservation = await books.write(reservation)
        except BaseException:
            await desk.release(reservation)
            raise
        _check_same(reservation, request)
    # Now that it is written down: still held, whatever was wiped since it was decided?
    decision = await desk.hold(reservation, request.ttl_seconds, periods, ceiling)
    try:
        _check(decision, request, meter, ceiling)
    except ConflictError:
        await books.close(reservation.reservation_id, "refused")
        raise
    return Held(replace(reservation, expires_at=decision.expires_at), decision)


async def _known(request: HoldRequest, books: ReservationBooks) -> Reservation | None:
    try:
        reservation = await books.find(request.reservation_id)
    except NotFoundError:
        return None
    _check_same(reservation, request)
    if reservation.status == "refused":
        raise QuotaExceededError("this hold was refused before; what has changed since is for a new key to ask")
    if reservation.status != "held":
        raise ReservationOverError(f"reservation {reservation.reservation_id} is {reservation.status}")
    if not await books.extend(reservation.reservation_id, "held", reservation.expires_at):
        raise ReservationOverError(f"reservation {reservation.reservation_id} has expired")
    return reservation


def _check_same(reservation: Reservation, request: HoldRequest) -> None:
    if reservation.request_sha256 != request.sha256:
        raise OtherRequestError


def _check(decision: Decision, request: HoldRequest, meter: Meter, ceiling: Decimal | None) -> None:
    if decision.outcome == "granted":
        return
    if decision.outcome == "taken":
        raise ReservationOverError(f"the event of {request.reservation_id} was counted already")
    if decision.outcome == "too_many":
        raise TooManyReservationsError
    bound = ceiling or Decimal(0)
    left = max(bound - decision.used - decision.held, Decimal(0))
    raise QuotaExceededError(
        f"{plain(request.amount)} {meter.unit} asked for, {plain(left)} left: {plain(decision.used)} used and"
        f" {plain(decision.held)} reserved of {plain(bound)}"
    )


async def commit_reservation(
    reservation_id: str,
    actual: Decimal,
    *,
    tenant: str,
    settle_seconds: int,
    books: ReservationBooks,
    desk: ReservationDesk,
    clock: Clock,
) -> Reservation:
    """Say how much was really used: it counts until its event is in the live total, for `settle_seconds` at most.

    Nothing used is a release. Raises `ExceedsHoldError`, `ReservationOverError`, `NotFoundError`, `InvalidInputError`.
    """
    if isinstance(scale_quantity(actual), str) or not 1 <= settle_seconds <= SETTLE_SECONDS_MAX:
        raise InvalidInputError([Fault("invalid_amount", "expected a quantity, and 1 to 604800 seconds", "amount")])
    reservation = await find_own(reservation_id, tenant, books)
    if reservation.status == "settled":
        return reservation
    if reservation.status not in ("held", "committed"):
        raise ReservationOverError(f"reservation {reservation_id} is {reservation.status}")
    if actual > reservation.amount:
        raise ExceedsHoldError(f"{plain(actual)} committed of {plain(reservation.amount)} held")
    if actual == 0:
        return await release_reservation(reservation_id, tenant=tenant, books=books, desk=desk)
    until = max(reservation.expires_at, clock.now() + timedelta(seconds=settle_seconds))
    # Written down before Redis knows: should Redis be wiped in between, it counts for as long as it is promised here.
    if not await books.extend(reservation_id, "committed", until):
        raise ReservationOverError(f"reservation {reservation_id} has expired")
    committed = replace(reservation, status="committed", expires_at=until)
    decision = await desk.commit(committed, actual)
    if decision.outcome == "gone":
        await books.close(reservation_id, "released")
        raise ReservationOverError(f"reservation {reservation_id} has expired")
    if decision.outcome == "taken":
        return replace(committed, amount=actual, status="settled")
    await books.reduce(reservation_id, actual)
    return replace(committed, amount=actual)


async def release_reservation(
    reservation_id: str, *, tenant: str, books: ReservationBooks, desk: ReservationDesk
) -> Reservation:
    """Give up what is held, or a commit whose event will not come; twice is once. Raises `NotFoundError`."""
    reservation = await find_own(reservation_id, tenant, books)
    if reservation.status not in ("held", "committed"):
        return reservation
    await desk.release(reservation)
    await books.close(reservation_id, "released")
    return replace(reservation, status="released")


async def find_own(reservation_id: str, tenant: str, books: ReservationBooks) -> Reservation:
    """Return a tenant's reservation; another tenant's is not found (`NotFoundError`)."""
    reservation = await books.find(reservation_id)
    if reservation.tenant_id != tenant:
        raise NotFoundError(f"no reservation {reservation_id[:80]!r}")
    return reservation
