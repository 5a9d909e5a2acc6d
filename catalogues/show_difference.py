"""What a catalogue changes, as text for a terminal and as JSON. Owns how a change reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from catalogues.domain.difference import ORDER, Change, Difference, FieldChange, Path
from catalogues.read_date import start_of_day
from core.period import format_instant

_VALUE_WIDTH_MAX = 44
_TERMS_WIDTH_MAX = 88
_AMOUNTS = ("amount", "percent", "included", "limit", "quantity", "capacity", "unit_amounts")


def difference_document(difference: Difference) -> dict[str, Any]:
    """Return the difference as JSON: every leaf with what it was and will be."""
    return {
        "editions": [
            {
                "catalogue": one.catalogue,
                "version": one.version,
                "effective_from": format_instant(one.effective_from) if one.effective_from else None,
            }
            for one in difference.editions
        ],
        "changes": [_change_document(change) for change in difference.changes],
        "unchanged": difference.unchanged,
        "kept": [{"catalogue": catalogue, "plan": plan_id} for catalogue, plan_id in difference.kept],
        "refused": [{"code": one.code, "path": one.path, "reason": one.reason} for one in difference.refused],
    }


def difference_text(difference: Difference, *, is_done: bool) -> str:
    """Return the difference for people: every edition, every thing that is new, every leaf of what changes.

    `is_done`: it was stored; otherwise it would be.
    """
    lines: list[str] = []
    for edition in difference.editions:
        since = f", from {date_text(edition.effective_from)}" if edition.effective_from else ""
        lines.append(f"catalogue {edition.catalogue}: version {edition.version}{since}")
    was_block = True
    for change in difference.changes:
        is_block = change.kind == "plan" or not change.is_new
        lines += ["", _headline(change)] if is_block or was_block else [_headline(change)]
        lines += table_lines(_rows(change)) if is_block else []
        was_block = is_block
    if difference.kept:
        kept = ", ".join(f"{plan_id} ({catalogue})" for catalogue, plan_id in difference.kept)
        lines += ["", f"no longer in the files, and kept as they are: {kept}"]
    if difference.refused:
        lines += ["", "it would be refused:"]
        lines += [f"  {fault}" for fault in difference.refused]
    return "\n".join([*lines, *([""] if lines else []), _summary(difference, is_done)])


def date_text(instant: datetime, time_zone: str = "UTC") -> str:
    """Write an instant for people: the date alone if its day in `time_zone` begins with it, else to the second."""
    local = instant.astimezone(ZoneInfo(time_zone)).date()
    if start_of_day(local, time_zone) == instant:
        return local.isoformat()
    return format_instant(instant.replace(microsecond=0))


def path_text(path: Path) -> str:
    """Write the way to a leaf: `llm.unit_amounts.gpt4`, `storage.tiers[up_to 1000]`, `llm.unit_amounts["gpt-3.5"]`."""
    text = ""
    for step in path:
        if step.startswith("["):
            text += f"[{_item_name(step[1:-1])}]"
        elif "." in step:
            text += f'["{step}"]'
        else:
            text += f".{step}" if text else step
    return text


def _item_name(name: str) -> str:
    """Write the name of a list's item: its place, or what tells it apart (`up_to 1000`, `region eu, class hot`)."""
    if not name.startswith("{"):
        return name
    [(key, value)] = json.loads(name).items()
    inner = value if isinstance(value, dict) else {key: value}
    return " / ".join(f"{each} {_show(of)}" for each, of in inner.items())


def _headline(change: Change) -> str:
    if change.kind != "plan":
        return f"{change.kind} {change.name}: {_gist(change) if change.is_new else 'changed'}"
    sold = f", sold from {date_text(change.effective_from)}" if change.effective_from else ""
    if change.is_new:
        return f"plan {change.name}: new, version {change.version_after}{sold}"
    return f"plan {change.name}: version {change.version_before} → {change.version_after}{sold}"


def _gist(change: Change) -> str:
    """Return what a new meter counts, or what a new feature is, in a few words."""
    said = {one.path[0]: one.after for one in change.fields}
    if change.kind == "feature":
        return f"new, {said['kind']}" + (f", counts {said['meter_id']}" if "meter_id" in said else "")
    counted = f"{said['aggregation']} of {said['value_property']}" if said["value_property"] else "count"
    return f"new, {counted} of {said['event_type']}, in {said['unit']}s"


def _rows(change: Change) -> Iterator[tuple[str, str, str, str]]:
    """Yield sign, place, what changes and by how much; a thing that comes or goes as a whole is one row."""
    groups: dict[Path, list[FieldChange]] = {}
    for one in change.fields:
        groups.setdefault(_owner(one.path), []).append(one)
    for owner, fields in groups.items():
        place = path_text(owner[1:] if owner[:1] == ("charges",) else owner)
        if len(owner) > 1 and _is_whole(fields, is_new=True):
            yield "+", place, _terms(owner, fields, is_new=True), ""
        elif len(owner) > 1 and _is_whole(fields, is_new=False):
            yield "-", place, _terms(owner, fields, is_new=False), ""
        elif change.is_new:
            yield "+", place or path_text(fields[0].path), _terms(owner, fields, is_new=True), ""
        else:
            for one in fields:
                at = one.path[1:] if one.path[0] == "charges" and one.path[-1] != ORDER else one.path
                yield _sign(one), path_text(at), move_text(one), percent_text(one)


def _owner(path: Path) -> Path:
    """Return the charge (or limit, or feature) that a leaf belongs to; a plan's own fields are their own."""
    return path[:2] if len(path) > 1 and path[0] in ("charges", "features", "limits") and path[1] != ORDER else path


def _is_whole(fields: list[FieldChange], *, is_new: bool) -> bool:
    """Tell whether something came (or went) as a whole: a charge has a model, so a changed one is never all new."""
    gone = [one.before if is_new else one.after for one in fields]
    names = {one.path[-1] for one in fields}
    return all(value is None for value in gone) and ("model" in names or fields[0].path[0] in ("features", "limits"))


def _terms(owner: Path, fields: list[FieldChange], *, is_new: bool) -> str:
    terms: list[str] = []
    for one in fields:
        value = one.after if is_new else one.before
        inner = one.path[len(owner) :]
        if inner[-1:] == (ORDER,):
            continue
        if not inner or inner == ("model",):
            terms.insert(0, _show(value))
        elif inner not in (("name",), ("meter",)) or (inner == ("meter",) and value != owner[-1]):
            terms.append(f"{path_text(inner)} {_show(value)}")
    return ", ".join(terms)


def _sign(one: FieldChange) -> str:
    return "+" if one.before is None else "-" if one.after is None else "~"


def move_text(one: FieldChange) -> str:
    """Write what a leaf was and will be."""
    if one.before is None:
        return _show(one.after)
    if one.after is None:
        return _show(one.before)
    return f"{_show(one.before)} → {_show(one.after)}"


def percent_text(one: FieldChange) -> str:
    """Write by how much an amount rises or falls, "" for what is no amount or was nothing."""
    if not any(word in step for step in one.path for word in _AMOUNTS) or None in (one.before, one.after):
        return ""
    try:
        before, after = Decimal(str(one.before)), Decimal(str(one.after))
    except InvalidOperation:
        return ""
    if not before or not before.is_finite() or not after.is_finite():
        return ""
    change = (after / before - 1) * 100
    return f"{change:+.1f} %" if abs(change) < 10_000 else f"× {after / before:.0f}"


def _show(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        text = ", ".join(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_WIDTH_MAX else text[: _VALUE_WIDTH_MAX - 1] + "…"


def table_lines(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows (place, what changes, by how much) as lines in columns; a long list of terms takes several lines."""
    found = list(rows)
    width = max((len(row[-3]) for row in found), default=0)
    moved = max((len(row[-2]) for row in found if row[-1]), default=0)
    lines: list[str] = []
    for *sign, place, move, percent in found:
        first, *more = _wrapped(move)
        start = " ".join([*sign, f"{place:<{width}}"])
        lines.append(f"  {start}  {first:<{moved}}  {percent}".rstrip())
        lines += [f"  {'':<{len(start)}}  {line}" for line in more]
    return lines


def _wrapped(terms: str) -> list[str]:
    lines = [""]
    for term in terms.split(", "):
        if lines[-1] and len(lines[-1]) + len(term) > _TERMS_WIDTH_MAX:
            lines[-1] += ","
            lines.append(term)
        else:
            lines[-1] += f", {term}" if lines[-1] else term
    return lines


def _summary(difference: Difference, is_done: bool) -> str:
    if difference.is_empty:
        return "nothing new: what the files say is stored" if is_done else "no difference: what the files say is stored"
    counts = []
    for kind in ("meter", "feature", "plan"):
        of_kind = [change for change in difference.changes if change.kind == kind]
        for is_new, word in ((True, "new"), (False, "changed")):
            number = sum(change.is_new == is_new for change in of_kind)
            if number:
                counts.append(f"{number} {word} {kind}{'s' if number > 1 else ''}")
    done = "stored" if is_done else "would change if it were not refused" if difference.refused else "would be stored"
    return f"{', '.join(counts) or 'no meter, feature or plan'} {done}; {difference.unchanged} as before"


def _change_document(change: Change) -> dict[str, Any]:
    document: dict[str, Any] = {"kind": change.kind, "id": change.name, "is_new": change.is_new}
    if change.kind == "plan":
        document |= {
            "catalogue": change.catalogue,
            "version": {"before": change.version_before, "after": change.version_after},
            "effective_from": format_instant(change.effective_from) if change.effective_from else None,
        }
    fields = [{"path": path_text(one.path), "before": one.before, "after": one.after} for one in change.fields]
    return document | {"fields": fields}
