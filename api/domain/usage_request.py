"""A usage request's body. Owns what of it goes to the broker; its form is read and judged by the core's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from core.corrections import ANY_AGE, Backfill, read_reserved
from core.input_forms.correction import read_correction
from core.input_forms.fields import Formed, Refusal, decode_json
from core.input_forms.mapping import FormMapping
from core.input_forms.recognise import read_form
from core.meters import Registry
from core.usage_event import (
    METER_BACKFILL,
    CloudEvent,
    IngestLimits,
    Rejection,
    ReservedEvent,
    UsageEvent,
    decode_batch,
    judge_event,
    parse_event,
)

# Enough to mend an export by; an answer is no place for ten thousand of them.
FAULTS_MAX = 100


@dataclass(frozen=True, slots=True)
class ReadyUsage:
    """Usage the stream will accept: its id, its tenant (the record's key), and the bytes of its CloudEvents.

    `form` is what it came as, None for a CloudEvent. `is_alone` asks for a record of its own.
    """

    usage_id: str
    tenant: str
    values: tuple[bytes, ...]
    form: str | None = None
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class ReadyBatch:
    """An array of usage events of one tenant, all good: it goes to the broker as it is."""

    tenant: str
    ids: list[str]


@dataclass(frozen=True, slots=True)
class Judge:
    """What usage of one request is judged by; `received_us` is microseconds since 1970 UTC."""

    registry: Registry
    limits: IngestLimits
    mapping: FormMapping
    received_us: int

    def read(self, raw: bytes, *, forms_allowed: bool, make_id: Callable[[], str]) -> ReadyUsage | Refusal:
        """Judge one usage; `make_id` names one that brings no id."""
        if not forms_allowed or b'"specversion"' in raw:
            judged = parse_event(raw, self.registry, self.limits, self.received_us)
            if type(judged) is UsageEvent:
                return ReadyUsage(judged.id, judged.tenant, (raw,))
            # Some other form may have a dimension of that name.
            if not (forms_allowed and isinstance(judged, Rejection) and judged.code == "missing_field"):
                return self._conclude(judged, raw)
        # Checked before the form is mapped: what is too large as sent stays too large.
        if len(raw) > self.limits.max_bytes:
            reason = f"the event has {len(raw)} bytes, {self.limits.max_bytes} are allowed"
            return Refusal((Rejection("too_large", reason),))
        found = read_form(raw, self.registry, self.mapping, make_id())
        if found is None:
            return self._conclude(parse_event(raw, self.registry, self.limits, self.received_us), raw)
        if isinstance(found, Refusal):
            return found
        return self._judge_formed(found.form, found.form_id, found.events)

    def read_at_once(self, body: bytes, events_max: int) -> ReadyBatch | None:
        """Judge an array of events at once; None if it must be looked at one by one."""
        events = decode_batch(body, self.limits)
        if not events or len(events) > events_max:
            return None
        registry, limits, received_us = self.registry, self.limits, self.received_us
        ids = []
        tenant = events[0].subject.partition("/")[0]
        for event in events:
            judged = judge_event(event, registry, limits, received_us)
            if type(judged) is not UsageEvent or judged.tenant != tenant:
                return None
            ids.append(judged.id)
        return ReadyBatch(tenant, ids)

    def read_correction(self, event_type: str, raw: bytes, event_id: str) -> ReadyUsage | Refusal:
        """Judge the plain form of a correction."""
        if len(raw) > self.limits.max_bytes:
            reason = f"the correction has {len(raw)} bytes, {self.limits.max_bytes} are allowed"
            return Refusal((Rejection("too_large", reason),))
        found = decode_json(raw)
        if isinstance(found, Rejection):
            return Refusal((found,))
        if not isinstance(found, dict):
            return Refusal((Rejection("not_an_object", "expected a JSON object"),))
        formed = read_correction(event_type, found, event_id, self.received_us)
        if isinstance(formed, Refusal):
            return formed
        ready = self._conclude(parse_event(formed.value, self.registry, self.limits, self.received_us), formed.value)
        return _point_back(formed, ready) if isinstance(ready, Refusal) else ready

    def _judge_formed(self, form: str, form_id: str, events: list[Formed]) -> ReadyUsage | Refusal:
        faults: list[Rejection] = []
        tenant = ""
        for formed in events:
            judged = parse_event(formed.value, self.registry, self.limits, self.received_us)
            if isinstance(judged, ReservedEvent):
                judged = Rejection("reserved_type", f"{judged.type} is no usage", "/type")
            if isinstance(judged, Rejection):
                faults.append(formed.point_back(judged))
            else:
                tenant = judged.tenant
        if faults:
            # What several events have in common is one fault of the form.
            return Refusal(tuple(dict.fromkeys(faults)))
        return ReadyUsage(form_id, tenant, tuple(formed.value for formed in events), form)

    def _conclude(self, judged: UsageEvent | ReservedEvent | Rejection, raw: bytes) -> ReadyUsage | Refusal:
        if isinstance(judged, Rejection):
            return Refusal(_all_missing(raw) if judged.code == "missing_field" else (judged,))
        if isinstance(judged, ReservedEvent):
            if judged.type == METER_BACKFILL:
                return Refusal((Rejection("reserved_type", f"{judged.type} is written by Meterbook itself", "/type"),))
            found = read_reserved(judged, self.registry, self.received_us)
            if isinstance(found, Rejection):
                return Refusal((found,))
            if isinstance(found, Backfill):
                faults = self._faults_within(found)
                return Refusal(faults) if faults else ReadyUsage(judged.id, judged.tenant, (raw,), is_alone=True)
        return ReadyUsage(judged.id, judged.tenant, (raw,))

    def _faults_within(self, backfill: Backfill) -> tuple[Rejection, ...]:
        """Judge a backfill's events as the stream will, so that a bad one is told before the others are counted."""
        faults = []
        for index, item in enumerate(backfill.items):
            judged = parse_event(item, self.registry, ANY_AGE, self.received_us)
            if isinstance(judged, ReservedEvent):
                judged = Rejection("invalid_correction", "a backfill's events must be usage", "/type")
            elif isinstance(judged, UsageEvent):
                if backfill.start_us <= judged.time_us < backfill.end_us:
                    continue
                judged = Rejection("outside_range", "the event is not within the backfill's range", "/time")
            faults.append(Rejection(judged.code, judged.reason, f"/data/events/{index}{judged.pointer}"))
            if len(faults) == FAULTS_MAX:
                break
        return tuple(faults)


def _point_back(formed: Formed, refusal: Refusal) -> Refusal:
    return Refusal(tuple(formed.point_back(fault) for fault in refusal.faults))


def _all_missing(raw: bytes) -> tuple[Rejection, ...]:
    """Return a fault per missing attribute of a CloudEvent that was refused for one."""
    found = decode_json(raw)
    return tuple(
        Rejection("missing_field", f"{name} is missing", f"/{name}")
        for name in CloudEvent.__struct_fields__
        if found.get(name) is None
    )


class _Named(msgspec.Struct):
    id: str


def read_id(raw: bytes) -> str | None:
    """Return the id of an event that was refused, if it can be read, so that its sender finds it again."""
    try:
        found = msgspec.json.decode(raw, type=_Named).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found[:256]
