"""What a subscription held and when: its phases, replayed from how it began and every change since. Pure.

Changes are facts that are only ever added: each says from when it counts (`effective_at`) and when it was put down
(`recorded_at`), so the timeline can be asked for as known now or as known at any earlier moment. Taking a change back
is a change too (`withdrawn`). Amounts follow from phases alone, so a bill made then can be told from a bill made now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from core.errors import Fault, must_hold
from core.period import Period, format_instant
from rating.domain.contract import Contract, contract_at
from rating.domain.cycle import Cycle
from rating.domain.digest import digest_of
from rating.domain.override_plan import merge_overrides
from rating.domain.proration import Convention

ONE = Decimal(1)


class State(Enum):
    """Whether fees are due: neither during a trial nor during a pause. Usage counts in a pause all the same."""

    TRIAL = "trial"
    ACTIVE = "active"
    PAUSED = "paused"


_NOT_PAUSABLE = {State.TRIAL: "in_trial", State.PAUSED: "already_paused"}


class ChangeKind(Enum):
    """What a change does. Its payload (JSON; quantities are decimal strings) holds what is named here."""

    # plan_id, plan_version, overrides, and quantity if that changes too
    PLAN_CHANGED = "plan_changed"
    # plan_id, plan_version, overrides: made for many subscribers of an old version at once
    MIGRATED = "migrated"
    # quantity, and add_on (a plan_id) if it is that one's
    QUANTITY_CHANGED = "quantity_changed"
    # plan_id, plan_version, quantity
    ADD_ON_ADDED = "add_on_added"
    # plan_id
    ADD_ON_REMOVED = "add_on_removed"
    TRIAL_ENDED = "trial_ended"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELED = "canceled"
    # Begins again after its end; without a gap if it counts from that very instant.
    REACTIVATED = "reactivated"
    RENEWED = "renewed"
    # sequence: the change that never was, from now on
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class AddOn:
    """A further plan held beside the subscription's own; at most one of each plan. `overrides` are a contract's."""

    plan_id: str
    plan_version: int
    quantity: Decimal = ONE
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """What is held at an instant.

    `quantity` is what licensed prices multiply by (seats). `overrides` lie over the plan version; `lay_contracts` puts
    a contract's on top and names it, with its proration convention if it has one of its own.
    """

    plan_id: str
    plan_version: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    quantity: Decimal = ONE
    add_ons: tuple[AddOn, ...] = ()
    state: State = State.ACTIVE
    contract: tuple[str, int] | None = None
    convention: Convention | None = None

    @property
    def plan_key(self) -> tuple[str, int, str]:
        """Plan, version and a digest of the overrides: phases with the same key have the same prices."""
        return (self.plan_id, self.plan_version, digest_of(dict(self.overrides)))

    def add_on(self, plan_id: str) -> AddOn | None:
        """Return the add-on of a plan, None if it is not held."""
        return next((one for one in self.add_ons if one.plan_id == plan_id), None)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch `[start, end)` in which nothing changes, without end while `end` is None. On whole minutes."""

    start: datetime
    end: datetime | None
    held: Held

    @property
    def period(self) -> Period:
        """The stretch of a phase that has an end, which every phase of `Timeline.within` has."""
        if self.end is None:
            must_hold(False, f"the phase from {self.start} has no end yet")
            raise AssertionError
        return Period(self.start, self.end)

    def within(self, period: Period) -> Phase | None:
        """Return the part of the phase in a period, None if there is none."""
        start = max(self.start, period.start)
        end = period.end if self.end is None else min(self.end, period.end)
        if start == self.start and end == self.end:
            return self
        return Phase(start, end, self.held) if start < end else None

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant and (self.end is None or instant < self.end)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A subscription's phases in order, without overlap; where it was cancelled and begun again lies a gap."""

    subscription_id: str
    tenant_id: str
    cycle: Cycle
    convention: Convention
    phases: tuple[Phase, ...]

    @property
    def started_at(self) -> datetime | None:
        """When the first phase begins, None if nothing was ever held."""
        return self.phases[0].start if self.phases else None

    @property
    def ended_at(self) -> datetime | None:
        """When the last phase ends, None while there is no end (or nothing was ever held)."""
        return self.phases[-1].end if self.phases else None

    def within(self, period: Period) -> list[Phase]:
        """Return the phases in a period, cut to it; each has an end."""
        return [part for phase in self.phases if (part := phase.within(period)) is not None]

    def at(self, instant: datetime) -> Held | None:
        """Return what is held at an instant, None before the start, in a gap and after the end."""
        return next((phase.held for phase in self.phases if instant in phase), None)

    def periods(self, within: Period) -> Iterator[Period]:
        """Yield the cycle's periods that share an instant with `within` and in which anything is held."""
        return (period for period in self.cycle.periods(within) if self.within(period))

    def convention_in(self, period: Period) -> Convention:
        """Return the convention that measures shares of a cycle's period.

        One for the whole period, or its shares would not add up: that of the first phase in it.
        """
        phases = self.within(period)
        return (phases[0].held.convention if phases else None) or self.convention


@dataclass(frozen=True, slots=True)
class SubscriptionStart:
    """How a subscription began. `held.state` is `TRIAL` exactly while there is a `trial_ends_at` after the start."""

    subscription_id: str
    tenant_id: str
    cycle: Cycle
    convention: Convention
    started_at: datetime
    recorded_at: datetime
    held: Held
    trial_ends_at: datetime | None = None

    def __post_init__(self) -> None:
        trial = self.trial_ends_at is not None and self.trial_ends_at > self.started_at
        must_hold((self.held.state is State.TRIAL) == trial, f"{self.subscription_id}: a trial without an end")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a subscription; `sequence` counts them in the order they were put down, from 1."""

    sequence: int
    kind: ChangeKind
    effective_at: datetime
    recorded_at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay's outcome: the phases, and every change that contradicts what was held when it became effective."""

    phases: tuple[Phase, ...]
    faults: tuple[tuple[Change, Fault], ...]


def build_timeline(
    subscription: SubscriptionStart, changes: Iterable[Change], *, known_at: datetime | None = None
) -> Timeline:
    """Return the timeline as known at an instant, as known now if None; before it was recorded there are no phases.

    Stored changes that contradict each other are our own mistake (`BrokenInvariantError`): verbs refuse them.
    """
    phases: tuple[Phase, ...] = ()
    if known_at is None or subscription.recorded_at <= known_at:
        replayed = replay(subscription, (one for one in changes if known_at is None or one.recorded_at <= known_at))
        must_hold(not replayed.faults, f"{subscription.subscription_id}: {[str(why) for _, why in replayed.faults]}")
        phases = replayed.phases
    return Timeline(
        subscription.subscription_id, subscription.tenant_id, subscription.cycle, subscription.convention, phases
    )


def replay(subscription: SubscriptionStart, changes: Iterable[Change]) -> Replayed:
    """Play the changes that were not withdrawn in the order they become effective, those of one instant as recorded."""
    ordered = sorted(changes, key=lambda change: change.sequence)
    faults: list[tuple[Change, Fault]] = []
    counting = _without_withdrawn(ordered, faults)
    state = _Replay(subscription.started_at, subscription.held, subscription.trial_ends_at)
    for change in sorted(counting, key=lambda change: (change.effective_at, change.sequence)):
        fault = state.apply(change)
        if fault is not None:
            faults.append((change, fault))
    return Replayed(tuple(_merged(state.finish())), tuple(faults))


def standing_changes(changes: Iterable[Change]) -> list[Change]:
    """Return the changes that count, in the order they were recorded: neither withdrawn nor a withdrawal."""
    return _without_withdrawn(sorted(changes, key=lambda change: change.sequence), [])


def lay_contracts(timeline: Timeline, contracts: Iterable[Contract]) -> Timeline:
    """Return the timeline with phases cut where contracts begin and end, and the contracts' overrides laid over.

    `contracts` are the tenant's; each counts for the plan it names, be it the subscription's own or an add-on.
    """
    kept = [one for one in contracts if one.tenant_id == timeline.tenant_id]
    if not kept:
        return timeline
    phases: list[Phase] = []
    for phase in timeline.phases:
        phases += _under_contracts(phase, kept)
    return replace(timeline, phases=tuple(_merged(phases)))


def cut_to_minute(instant: datetime) -> datetime:
    """Return the instant in UTC cut to its minute: usage is kept by the minute, and a minute belongs to one phase."""
    return instant.astimezone(UTC).replace(second=0, microsecond=0)


class _Replay:
    """Where a replay stands: what is held since when, or None outside of any phase."""

    def __init__(self, started_at: datetime, held: Held, trial_ends_at: datetime | None) -> None:
        self._since, self._held, self._trial_ends_at = started_at, held, trial_ends_at
        self._running = True
        self._started_at, self._phases = started_at, list[Phase]()

    def apply(self, change: Change) -> Fault | None:
        """Let the change count; returns why it cannot, and is left as it was then."""
        at = change.effective_at
        if at < self._started_at:
            return Fault("before_start", f"the subscription starts at {format_instant(self._started_at)}", "at")
        self._end_trial_by(at)
        if change.kind in (ChangeKind.REACTIVATED, ChangeKind.RENEWED):
            if self._running:
                return Fault("not_canceled", f"the subscription has not ended at {format_instant(at)}", "at")
            self._since, self._running = at, True
            if change.kind is ChangeKind.REACTIVATED and self._held.state is State.PAUSED:
                self._held = replace(self._held, state=State.ACTIVE)
            return None
        if not self._running:
            return Fault("after_end", f"the subscription ended at {format_instant(self._since)}", "at")
        if change.kind is ChangeKind.CANCELED:
            self._cut(at)
            self._running = False
            return None
        held = _changed(self._held, change)
        if isinstance(held, Fault):
            return held
        self._cut(at)
        self._held = held
        return None

    def finish(self) -> list[Phase]:
        """Return all phases; the last has no end unless the subscription was cancelled."""
        if self._trial_ends_at is not None:
            self._end_trial_by(self._trial_ends_at)
        if self._running:
            self._phases.append(Phase(self._since, None, self._held))
        return self._phases

    def _end_trial_by(self, instant: datetime) -> None:
        ends = self._trial_ends_at
        if ends is not None and ends <= instant and self._held.state is State.TRIAL:
            if self._running:
                self._cut(ends)
            self._held = replace(self._held, state=State.ACTIVE)

    def _cut(self, at: datetime) -> None:
        if self._since < at:
            self._phases.append(Phase(self._since, at, self._held))
        self._since = at


def _changed(held: Held, change: Change) -> Held | Fault:
    """Return what is held after a change that neither begins nor ends the subscription."""
    payload = change.payload
    match change.kind:
        case ChangeKind.PLAN_CHANGED | ChangeKind.MIGRATED if held.add_on(payload["plan_id"]) is not None:
            return Fault("add_on_exists", f"{payload['plan_id']!r} is held as an add-on", "plan")
        case ChangeKind.PLAN_CHANGED | ChangeKind.MIGRATED:
            return replace(
                held,
                plan_id=payload["plan_id"],
                plan_version=payload["plan_version"],
                overrides=payload.get("overrides", {}),
                quantity=Decimal(payload["quantity"]) if "quantity" in payload else held.quantity,
            )
        case ChangeKind.QUANTITY_CHANGED if "add_on" in payload:
            return _with_add_on_quantity(held, payload["add_on"], Decimal(payload["quantity"]))
        case ChangeKind.QUANTITY_CHANGED:
            return replace(held, quantity=Decimal(payload["quantity"]))
        case ChangeKind.ADD_ON_ADDED:
            if held.plan_id == payload["plan_id"] or held.add_on(payload["plan_id"]) is not None:
                return Fault("add_on_exists", f"{payload['plan_id']!r} is held already", "add_on")
            added = AddOn(payload["plan_id"], payload["plan_version"], Decimal(payload["quantity"]))
            return replace(held, add_ons=(*held.add_ons, added))
        case ChangeKind.ADD_ON_REMOVED:
            if held.add_on(payload["plan_id"]) is None:
                return _no_add_on(payload["plan_id"])
            return replace(held, add_ons=tuple(one for one in held.add_ons if one.plan_id != payload["plan_id"]))
        case ChangeKind.TRIAL_ENDED:
            if held.state is not State.TRIAL:
                return Fault("not_in_trial", "there is no trial to end", "at")
            return replace(held, state=State.ACTIVE)
        case ChangeKind.PAUSED:
            if held.state is not State.ACTIVE:
                return Fault(_NOT_PAUSABLE[held.state], f"only an active one is paused: {held.state.value}", "at")
            return replace(held, state=State.PAUSED)
        case ChangeKind.RESUMED:
            if held.state is not State.PAUSED:
                return Fault("not_paused", f"only a paused one is resumed: {held.state.value}", "at")
            return replace(held, state=State.ACTIVE)
        case _:
            return Fault("unknown_change", f"{change.kind.value} is not played", "kind")


def _with_add_on_quantity(held: Held, plan_id: str, quantity: Decimal) -> Held | Fault:
    if held.add_on(plan_id) is None:
        return _no_add_on(plan_id)
    add_ons = (replace(one, quantity=quantity) if one.plan_id == plan_id else one for one in held.add_ons)
    return replace(held, add_ons=tuple(add_ons))


def _no_add_on(plan_id: str) -> Fault:
    return Fault("unknown_add_on", f"no add-on {plan_id!r} is held", "add_on")


def _without_withdrawn(ordered: Iterable[Change], faults: list[tuple[Change, Fault]]) -> list[Change]:
    counting: dict[int, Change] = {}
    for change in ordered:
        if change.kind is not ChangeKind.WITHDRAWN:
            counting[change.sequence] = change
        elif counting.pop(change.payload["sequence"], None) is None:
            reason = f"there is no change {change.payload['sequence']} to withdraw"
            faults.append((change, Fault("unknown_change", reason, "sequence")))
    return list(counting.values())


def _merged(phases: Iterable[Phase]) -> Iterator[Phase]:
    """Join neighbours that hold the same, so that a change that changes nothing leaves no trace."""
    last: Phase | None = None
    for phase in phases:
        if last is not None and last.end == phase.start and last.held == phase.held:
            last = Phase(last.start, phase.end, phase.held)
            continue
        if last is not None:
            yield last
        last = phase
    if last is not None:
        yield last


def _under_contracts(phase: Phase, contracts: list[Contract]) -> Iterator[Phase]:
    plans = {phase.held.plan_id, *(one.plan_id for one in phase.held.add_ons)}
    concerned = [one for one in contracts if one.plan_id in plans]
    edges = {edge for one in concerned for edge in (one.valid_from, one.valid_until) if edge is not None}
    starts = [phase.start, *sorted(edge for edge in edges if edge in phase and edge > phase.start)]
    for start, end in zip(starts, [*starts[1:], phase.end], strict=True):
        yield Phase(start, end, _held_under(phase.held, concerned, start))


def _held_under(held: Held, contracts: list[Contract], instant: datetime) -> Held:
    found = contract_at(contracts, instant, plan_id=held.plan_id)
    add_ons = []
    for one in held.add_ons:
        own = contract_at(contracts, instant, plan_id=one.plan_id)
        add_ons.append(replace(one, overrides=merge_overrides(one.overrides, own.overrides)) if own else one)
    laid = replace(held, add_ons=tuple(add_ons))
    if found is None:
        return laid
    return replace(
        laid,
        overrides=merge_overrides(held.overrides, found.overrides),
        contract=(found.contract_id, found.version),
        convention=Convention(found.convention) if found.convention else None,
    )
