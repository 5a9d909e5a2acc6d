"""What usage must come to, worked out from the generator's own log. Shares no code with the product.

Events are plain dictionaries in the order of the log. Sums are `Decimal`s in a context that never rounds, areas are
integers and `Fraction`s, the first event of an identity wins, corrections take effect in the order of the log.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from tests.chaos.traffic import Record

_EXACT = Context(prec=200)
_PLACES = 12  # as many decimal places as a quantity may have
_RESERVED = "meterbook.usage."
# Nothing is generated whose window closes within this of the moment it is sent.
_GAP = timedelta(minutes=10)
Condition = tuple[str, str, tuple[str, ...]]
Dimensions = tuple[tuple[str, str], ...]
Window = tuple[str, str, Dimensions, datetime]


@dataclass(frozen=True)
class Rule:
    """A meter as the oracle sees it: `value` names the property within `data`, None counts events."""

    name: str
    event_type: str
    aggregation: str
    value: str | None
    dimensions: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    weight_per: str | None = None
    lateness: timedelta = timedelta(hours=1)

    @property
    def is_additive(self) -> bool:
        """Whether minutes add up."""
        return self.aggregation in ("sum", "count", "average")


@dataclass(frozen=True)
class Almanac:
    """A tenant's time zone and the day on which its billing periods begin."""

    zone: str = "UTC"
    anchor: int = 1


@dataclass(frozen=True)
class Sent:
    """A record and its place on `usage.events`; `at` is when it was sent."""

    record: Record
    partition: int
    offset: int
    at: datetime


@dataclass(frozen=True)
class Part:
    """What one event gives one meter: a quantity, or a text for distinct values."""

    rule: Rule
    dimensions: Dimensions
    quantity: Decimal
    text: str = ""


@dataclass
class Live:
    """An accepted event that counts."""

    tenant: str
    instant: datetime
    micros: int
    parts: tuple[Part, ...]
    order: tuple[int, int, int]


@dataclass
class Expected:
    """What the stores must hold."""

    accepted: set[tuple[str, str, str]] = field(default_factory=set)
    live: dict[tuple[str, str, str], Live] = field(default_factory=dict)
    corrected: dict[tuple[str, str, str], str] = field(default_factory=dict)
    windows: dict[Window, tuple[Decimal, int]] = field(default_factory=dict)
    samples: Counter[tuple[str, str, Dimensions, int, str]] = field(default_factory=Counter)
    late: dict[Window, tuple[Decimal, int]] = field(default_factory=dict)
    periods: dict[tuple[str, str, str], tuple[Decimal, int]] = field(default_factory=dict)
    sampled: dict[tuple[str, str, str], tuple[Fraction, int]] = field(default_factory=dict)
    refused: dict[tuple[int, int, int], str] = field(default_factory=dict)
    events: int = 0


class Oracle:
    """Adds up a log."""

    def __init__(self, rules: Sequence[Rule], almanacs: Mapping[str, Almanac]) -> None:
        self._by_type: dict[str, list[Rule]] = defaultdict(list)
        for rule in rules:
            self._by_type[rule.event_type].append(rule)
        self._almanacs = almanacs

    def expect(self, log: Iterable[Sent]) -> Expected:
        """Return what must come of the records of `log`."""
        tally = _Tally(self._by_type)
        # Unkeyed records reach their tenant's partition later than keyed ones; nothing in them depends on the order.
        for sent in sorted(log, key=lambda sent: (sent.record.key is None, sent.partition, sent.offset)):
            tally.take(sent)
        found = tally.expected
        windows: dict[Window, list[Any]] = defaultdict(lambda: [Decimal(), 0])
        periods: dict[tuple[str, str, str], list[Any]] = defaultdict(lambda: [Decimal(), 0])
        for live in found.live.values():
            minute = live.instant.replace(second=0, microsecond=0)
            names = None
            for part in live.parts:
                if not part.rule.is_additive:
                    value = part.text or _plain(part.quantity)
                    found.samples[live.tenant, part.rule.name, part.dimensions, live.micros, value] += 1
                    continue
                names = names or period_names(live.instant, self._almanacs.get(live.tenant, Almanac()))
                _add(windows[live.tenant, part.rule.name, part.dimensions, minute], part.quantity, 1)
                for name in names:
                    _add(periods[live.tenant, part.rule.name, name], part.quantity, 1)
        found.windows = {key: (total[0], total[1]) for key, total in windows.items()}
        found.periods = {key: (total[0], total[1]) for key, total in periods.items()}
        found.late = {key: (total[0], total[1]) for key, total in tally.late.items()}
        found.sampled = self._sampled(found.live.values())
        return found

    def _sampled(self, lives: Iterable[Live]) -> dict[tuple[str, str, str], tuple[Fraction, int]]:
        """Return live totals of meters that do not add up, over all dimension values."""
        by_meter: dict[tuple[str, Rule], list[Live]] = defaultdict(list)
        for live in lives:
            for part in live.parts:
                if not part.rule.is_additive:
                    by_meter[live.tenant, part.rule].append(live)
        totals = {}
        for (tenant, rule), found in by_meter.items():
            almanac = self._almanacs.get(tenant, Almanac())
            within: dict[str, list[Live]] = defaultdict(list)
            for live in found:
                for name in period_names(live.instant, almanac):
                    within[name].append(live)
            for name, some in within.items():
                totals[tenant, rule.name, name] = (_sampled_total(rule, some, found, name, almanac), len(some))
        return totals


class _Tally:
    def __init__(self, by_type: Mapping[str, list[Rule]]) -> None:
        self.expected = Expected()
        self._by_type = by_type
        self._contents: dict[tuple[str, str, str], Any] = {}
        self.late: dict[Window, list[Any]] = defaultdict(lambda: [Decimal(), 0])

    def take(self, sent: Sent) -> None:
        record = sent.record
        if record.refused:
            self.expected.refused[sent.partition, sent.offset, -1] = record.refused
            self.expected.events += 1
            return
        for index, event in enumerate(record.events):
            place = (sent.partition, sent.offset, index if record.is_array else -1)
            self.expected.events += 1
            self._event(event, place, sent)

    def _event(self, event: dict[str, Any], place: tuple[int, int, int], sent: Sent) -> None:
        tenant = str(event["subject"]).partition("/")[0]
        identity = (tenant, event["source"], event["id"])
        kind = event["type"]
        parts = () if kind.startswith(_RESERVED) else self._parts(kind, event["data"])
        content = event["data"] if kind.startswith(_RESERVED) else (kind, parts)
        if identity in self._contents:
            if self._contents[identity] != content:
                self.expected.refused[place] = "conflict"
            return
        if kind.startswith(_RESERVED):
            self._correct(kind, event, identity, content, place, sent)
            return
        self._contents[identity] = content
        self.expected.accepted.add(identity)
        self._put(identity, event["time"], parts, place, sent)

    def _correct(
        self,
        kind: str,
        event: dict[str, Any],
        identity: tuple[str, str, str],
        content: Any,
        place: tuple[int, int, int],
        sent: Sent,
    ) -> None:
        tenant, data, found = identity[0], event["data"], self.expected
        if kind.endswith("backfill"):
            # The frame counts nothing and claims nothing: sent again, its events are duplicates.
            for index, inner in enumerate(data["events"]):
                name = (tenant, event["source"], inner["id"])
                parts = self._parts(inner["type"], inner["data"])
                if name in self._contents:
                    continue
                self._contents[name] = (inner["type"], parts)
                found.accepted.add(name)
                self._put(name, inner["time"], parts, (place[0], place[1], index), sent)
            return
        target = (tenant, data["corrects"]["source"], data["corrects"]["id"])
        if target not in self._contents:
            found.refused[place] = "unknown_event"
            return
        if target in found.corrected:
            found.refused[place] = "already_corrected"
            return
        self._contents[identity] = content
        found.accepted.add(identity)
        found.corrected[target] = "void" if kind.endswith("void") else "amend"
        taken = found.live.pop(target)
        self._mark_late(taken, -1, sent)
        if kind.endswith("amend"):
            other = data["event"]
            parts = self._parts(other["type"], other["data"])
            self._put(identity, other["time"], parts, place, sent)

    def _put(
        self,
        identity: tuple[str, str, str],
        time: str,
        parts: tuple[Part, ...],
        place: tuple[int, int, int],
        sent: Sent,
    ) -> None:
        instant, micros = read_instant(time)
        live = Live(identity[0], instant, micros, parts, (micros, place[1], place[2]))
        self.expected.live[identity] = live
        self._mark_late(live, 1, sent)

    def _mark_late(self, live: Live, sign: int, sent: Sent) -> None:
        minute = live.instant.replace(second=0, microsecond=0)
        for part in live.parts:
            closes = minute + timedelta(minutes=1) + part.rule.lateness
            assert not sent.at - _GAP < closes <= sent.at + _GAP, "too near to the closing of its window to say"
            if closes <= sent.at:
                # Of a meter whose totals do not add up only the number of changes is told.
                quantity = part.quantity if part.rule.is_additive else Decimal()
                _add(self.late[live.tenant, part.rule.name, part.dimensions, minute], sign * quantity, sign)

    def _parts(self, kind: str, data: dict[str, Any]) -> tuple[Part, ...]:
        parts = []
        for rule in self._by_type[kind]:
            if not all(_holds(condition, data) for condition in rule.conditions):
                continue
            dimensions = tuple(sorted((name, _text(data.get(name))) for name in rule.dimensions))
            if rule.value is None:
                parts.append(Part(rule, dimensions, Decimal(1)))
            elif data.get(rule.value) is not None:
                value = data[rule.value]
                if rule.aggregation == "unique":
                    parts.append(Part(rule, dimensions, Decimal(), _text(value)))
                else:
                    parts.append(Part(rule, dimensions, Decimal(str(value))))
        return tuple(parts)


def period_names(instant: datetime, almanac: Almanac) -> tuple[str, ...]:
    """Return the live periods that hold an instant: hour of UTC, local month, billing period unless it is the month."""
    local = instant.astimezone(ZoneInfo(almanac.zone))
    names = [f"{instant:%Y-%m-%dT%H}", f"{local:%Y-%m}"]
    if almanac.anchor != 1:
        day = local.date()
        start = _anchored(day.year, day.month, almanac.anchor)
        if day < start:
            before = day.replace(day=1) - timedelta(days=1)
            start = _anchored(before.year, before.month, almanac.anchor)
        names.append(start.isoformat())
    return tuple(names)


def area(lives: Iterable[Live], rule: Rule, start: int, end: int) -> Fraction:
    """Return the time-weighted quantity x microseconds of one tenant in [start, end), summed over series."""
    series: dict[Dimensions, list[tuple[tuple[int, int, int], Decimal]]] = defaultdict(list)
    for live in lives:
        for part in live.parts:
            if part.rule.name == rule.name:
                series[part.dimensions].append((live.order, part.quantity))
    total = 0
    for levels in series.values():
        levels.sort()
        for position, (order, level) in enumerate(levels):
            until = levels[position + 1][0][0] if position + 1 < len(levels) else end
            held = min(until, end) - max(order[0], start)
            if held > 0:
                total += int(level.scaleb(_PLACES, _EXACT)) * held
    return Fraction(total, 10**_PLACES)


def period_bounds(name: str, almanac: Almanac) -> tuple[datetime, datetime]:
    """Return the half-open bounds of an hour of UTC, a local month, or a billing period by its start."""
    zone = ZoneInfo(almanac.zone)
    if "T" in name:
        start = datetime.fromisoformat(f"{name}:00+00:00")
        return start, start + timedelta(hours=1)
    first = date.fromisoformat(name if name.count("-") == 2 else f"{name}-01")
    following = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
    last = _anchored(following.year, following.month, almanac.anchor) if name.count("-") == 2 else following
    bounds = [datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) for day in (first, last)]
    return bounds[0], bounds[1]


def _sampled_total(rule: Rule, some: list[Live], all_of_meter: list[Live], name: str, almanac: Almanac) -> Fraction:
    parts = [(live, part) for live in some for part in live.parts if part.rule.name == rule.name]
    if rule.aggregation == "unique":
        return Fraction(len({part.text for _, part in parts}))
    if rule.aggregation == "latest":
        return Fraction(max(parts, key=lambda one: one[0].order)[1].quantity)
    if rule.aggregation in ("max", "min"):
        choose = max if rule.aggregation == "max" else min
        return Fraction(choose(part.quantity for _, part in parts))
    start, end = (_micros(bound) for bound in period_bounds(name, almanac))
    return area(all_of_meter, rule, start, end)


def read_instant(text: str) -> tuple[datetime, int]:
    """Read RFC 3339, fractions beyond microseconds cut off; returns the instant and its microseconds since 1970."""
    head, dot, rest = text.partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
    instant = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    return instant, _micros(instant)


def _micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _anchored(year: int, month: int, anchor: int) -> date:
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, min(anchor, (following - timedelta(days=1)).day))


def _holds(condition: Condition, data: dict[str, Any]) -> bool:
    name, operator, values = condition
    value = data.get(name)
    if value is None:
        return operator in ("missing", "ne", "not_in")
    if operator in ("gt", "gte", "lt", "lte"):
        number, bound = Decimal(str(value)), Decimal(values[0])
        return {"gt": number > bound, "gte": number >= bound, "lt": number < bound, "lte": number <= bound}[operator]
    among = _text(value) in values
    return {"eq": among, "in": among, "ne": not among, "not_in": not among, "exists": True, "missing": False}[operator]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _add(total: list[Any], quantity: Decimal, events: int) -> None:
    total[0] = _EXACT.add(total[0], quantity)
    total[1] += events
