"""Reads schedules of dunning from YAML: the file of the settings, or the one that ships; every fault at once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from core.errors import Fault, InvalidInputError
from core.read_yaml import read_yaml
from payments.dunning.domain.schedule import Anchor, Schedule, Schedules, Step, StepKind

_DAYS_MAX = 365
_FIELDS = {"hour", "grace_days", "charged", "transferred"}
_STEP_FIELDS = {"step", "after", "days"}


def load_schedules(path: Path | None) -> Schedules:
    """Return the schedules; raises `InvalidInputError` with file, path and reason of every fault."""
    try:
        content = path.read_bytes() if path else (resources.files("payments.dunning") / "schedules.yaml").read_bytes()
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", error.strerror or str(error), str(path))]) from None
    name = str(path) if path else "schedules.yaml"
    document, _ = read_yaml(content, name)
    return read_schedules(document, name)


def read_schedules(document: Any, name: str = "schedules") -> Schedules:
    """Return the schedules of a document; raises `InvalidInputError` with every fault.

    Codes: `invalid_schedule`, `unknown_field`, `invalid_step`, `invalid_days`, `invalid_hour`, `missing_default`,
    `retry_by_transfer`, `suspension_unannounced` for one without a mail before it.
    """
    faults: list[Fault] = []
    if not isinstance(document, dict):
        raise InvalidInputError([Fault("invalid_schedule", "expected fields", name)])
    for field in sorted(map(str, document.keys() - _FIELDS)):
        faults.append(Fault("unknown_field", f"there is no {field!r}", f"{name}.{field}"))
    hour = _whole(document.get("hour", 9), 0, 23, "invalid_hour", f"{name}.hour", faults)
    grace = _whole(document.get("grace_days", 7), 0, _DAYS_MAX, "invalid_days", f"{name}.grace_days", faults)
    read: dict[str, Mapping[str, Schedule]] = {}
    for lane in ("charged", "transferred"):
        read[lane] = _tiers(document.get(lane), lane, f"{name}.{lane}", hour, grace, faults)
    if faults:
        raise InvalidInputError(faults)
    return Schedules(**read)


def _tiers(given: Any, lane: str, path: str, hour: int, grace: int, faults: list[Fault]) -> dict[str, Schedule]:
    if not isinstance(given, dict) or "default" not in given:
        faults.append(Fault("missing_default", "expected the steps of each tier, and those of default", path))
        return {}
    found = {}
    for tier, steps in given.items():
        place = f"{path}.{tier}"
        read = _steps(steps, place, faults)
        if lane == "transferred" and any(step.kind is StepKind.RETRY for step in read):
            faults.append(Fault("retry_by_transfer", "a transfer cannot be tried again from here", place))
        _check_announced(read, place, faults)
        found[str(tier)] = Schedule(f"{lane}/{tier}", read, grace, hour)
    return found


def _steps(given: Any, path: str, faults: list[Fault]) -> tuple[Step, ...]:
    if not isinstance(given, list):
        faults.append(Fault("invalid_schedule", "expected a list of steps", path))
        return ()
    steps: list[Step] = []
    counted: dict[StepKind, int] = {}
    for number, one in enumerate(given):
        place = f"{path}[{number}]"
        if not isinstance(one, dict) or not {"step", "days"} <= one.keys() <= _STEP_FIELDS:
            faults.append(Fault("invalid_step", "expected step, days, and after what", place))
            continue
        if one["step"] not in list(StepKind) or one.get("after", "due") not in list(Anchor):
            faults.append(Fault("invalid_step", f"no step {one['step']!r} after {one.get('after', 'due')!r}", place))
            continue
        kind, anchor = StepKind(one["step"]), Anchor(one.get("after", "due"))
        lowest = -_DAYS_MAX if kind is StepKind.UPCOMING and anchor is Anchor.DUE else 0
        days = _whole(one["days"], lowest, _DAYS_MAX, "invalid_days", f"{place}.days", faults)
        counted[kind] = counted.get(kind, 0) + 1
        steps.append(Step(f"{kind.value}-{counted[kind]}", kind, anchor, days))
    return tuple(steps)


def _check_announced(steps: tuple[Step, ...], path: str, faults: list[Fault]) -> None:
    """Nobody is shut out without having been told before."""
    for step in steps:
        told = {StepKind.REMINDER, StepKind.FINAL_NOTICE}
        before = (one for one in steps if one.kind in told and one.anchor is step.anchor and one.days < step.days)
        if step.kind is StepKind.SUSPENSION and next(before, None) is None:
            reason = "a reminder or final notice must come on a day before it"
            faults.append(Fault("suspension_unannounced", reason, path))


def _whole(value: Any, lowest: int, highest: int, code: str, path: str, faults: list[Fault]) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
        return value
    faults.append(Fault(code, f"expected a whole number from {lowest} to {highest}, got {value!r}", path))
    return 0
