"""Explanations on a terminal: the sum step by step, the ways it was derived again, and a plain verdict at the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from core.event_time import format_event_time
from core.period import format_instant
from invoicing.domain.explanation import EventState, Explanation, Figures, Outcome, hour_differences
from invoicing.domain.snapshot import money_text
from invoicing.domain.tax.tax_working import describe_tax
from invoicing.domain.usage_evidence import by_day
from invoicing.explain_documents import RECIPE
from rating.domain.price import plain

_BARS = "▁▂▃▄▅▆▇█"
_HOURS_SHOWN = 8
_ZERO = Decimal(0)
_WORDS = {Outcome.EQUAL: ("EQUAL", "bold green"), Outcome.DIFFERS: ("DIFFERS", "bold red")}
# What the charge's document says of itself, and is said elsewhere already.
_NOT_PRICE = frozenset({"id", "name", "model", "meter"})


def print_explanation(found: Explanation, console: Console) -> None:
    """Print one line's explanation."""
    invoice, line = found.invoice, found.line
    console.print()
    console.print(
        Text.assemble(
            (line.description, "bold"),
            "   ",
            (money_text(line.amount, invoice.currency), "bold"),
            f" {invoice.currency}",
        )
    )
    plan = line.evidence.get("plan") or {}
    issued = _second(format_instant(invoice.issued_at))
    where = f"line {found.position} of {invoice.number} ({invoice.status}) · {invoice.tenant_id}"
    what = f"plan {plan.get('id')} version {plan.get('version')} · {_span(found)} · issued {issued}"
    console.print(Text(f"{where}\n{what}", style="dim"))
    _section(console, "Price", [_price(line.evidence.get("charge") or {})])
    if line.meter_id is not None:
        _section(console, "Usage", _usage(found))
    _section(console, "The sum", _sum(found))
    _section(console, "Tax", [describe_tax(line, invoice.currency)])
    if found.failure is None:
        console.print()
        console.print(Text("Derived again", style="bold"))
        console.print(Padding(_ways(found), (0, 0, 0, 2)))
    _since(console, found)
    console.print()
    console.print(Text("Checks", style="bold"))
    for check in found.checks:
        mark = ("✓ ", "green") if check.holds else ("✗ ", "bold red")
        console.print(Padding(Text.assemble(mark, check.said, (f"  {check.code}", "dim")), (0, 0, 0, 2)))
    console.print()
    console.print(_verdict(found))


def print_overview(explained: Sequence[Explanation], console: Console) -> None:
    """Print all lines of an invoice in a table, and in full only those that are not equal."""
    invoice = explained[0].invoice
    table = Table(
        title=f"{invoice.number} · {invoice.tenant_id} · {_span(explained[0])}",
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for name in ("line", "what", "quantity", "billed", "then", "now", "rollups", ""):
        table.add_column(name, justify="left" if name in ("what", "") else "right", overflow="fold")
    for found in explained:
        ways = (
            ["?", "?", "?"]
            if found.failure is not None
            else [
                money_text(way.less(found.billed_before).amount, invoice.currency)
                for way in (found.then, found.now, found.rollups)
            ]
        )
        word, style = _word(found.outcome)
        table.add_row(
            str(found.position),
            Text(found.line.description),
            f"{_grouped(found.line.quantity)} {found.line.unit}".strip(),
            money_text(found.line.amount, invoice.currency),
            *ways,
            Text(word.lower(), style=style),
        )
    console.print(table)
    for found in explained:
        if found.outcome is not Outcome.EQUAL:
            console.print()
            console.rule(style="dim")
            print_explanation(found, console)
    if all(found.outcome is Outcome.EQUAL for found in explained):
        console.print()
        total = money_text(invoice.subtotal, invoice.currency)
        said = (
            f"every line of {invoice.number}, {total} {invoice.currency} in all, follows from its price and its events."
        )
        console.print(Text.assemble(("EQUAL", "bold green"), f"  {said}"))


def print_recipe(console: Console) -> None:
    """Print how anyone can check the digests with tools of their own."""
    console.print()
    console.print(Text("Check it yourself", style="bold"))
    for sentence in RECIPE:
        console.print(Padding(Text(sentence), (0, 0, 0, 2)))


def _section(console: Console, title: str, rows: Sequence[Text | str]) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    for row in rows:
        console.print(Padding(Text(row) if isinstance(row, str) else row, (0, 0, 0, 2)))


def _span(found: Explanation) -> str:
    period = found.invoice.period
    return f"{_second(format_instant(period.start))} to {_second(format_instant(period.end))}"


def _second(instant: str) -> str:
    """Return an instant as people read it: no fraction, no midnight."""
    text = instant.split(".")[0].rstrip("Z")
    day, _, time = text.partition("T")
    return day if time == "00:00:00" else f"{day} {time.removesuffix(':00')} UTC"


def _price(charge: dict[str, Any]) -> Text:
    said = Text(str(charge.get("model", "?")), style="cyan")
    for name, value in charge.items():
        if name not in _NOT_PRICE:
            said.append(f"   {name} ", style="dim")
            said.append(_value(value), style="default")
    return said


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(_value(one) for one in value)
    return str(value)


def _usage(found: Explanation) -> list[Text | str]:
    line, hours = found.line, found.billed.hours
    events = sum(count for _, _, count in hours)
    where = ", ".join(f"{name} {value or '(not named)'}" for name, value in line.dimensions)
    measured = line.evidence.get("measured")
    if measured:
        rows: list[Text | str] = [f"{line.meter_id}{' · ' + where if where else ''}: {measured.get('working')}"]
        return rows
    total = sum((quantity for _, quantity, _ in hours), _ZERO)
    count = f"{events:,} event{'' if events == 1 else 's'} in {len(hours):,} hour{'' if len(hours) == 1 else 's'}"
    rows = [f"{line.meter_id}{' · ' + where if where else ''}: {_grouped(total)} {line.unit} from {count}"]
    days = by_day(hours)
    if len(days) > 1:
        bars = _bars(days)
        busiest = max(days, key=lambda day: day[1])
        rows.append(
            Text.assemble(
                (f"{days[0][0][5:]} ", "dim"), (bars, "cyan"), (f" {days[-1][0][5:]}", "dim"),
                (f"   most on {busiest[0]}: {_grouped(busiest[1])}", "dim"),
            )
        )  # fmt: skip
    return rows


def _bars(days: Sequence[tuple[str, Decimal]]) -> str:
    """Return one bar per day from the first to the last; a day without usage is a dot."""
    of_day, top = dict(days), max(quantity for _, quantity in days)
    first, last = date.fromisoformat(days[0][0]), date.fromisoformat(days[-1][0])
    bars = []
    for number in range((last - first).days + 1):
        quantity = of_day.get((first + timedelta(days=number)).isoformat())
        if quantity is None or top <= 0:
            bars.append("·")
        else:
            bars.append(_BARS[int(max(quantity, _ZERO) * (len(_BARS) - 1) / top)])
    return "".join(bars)


def _sum(found: Explanation) -> list[Text | str]:
    line, currency = found.line, found.invoice.currency
    rows: list[Text | str] = list(found.billed.steps) or ["(no steps were kept)"]
    if line.corrects_invoice is None:
        exact, amount = plain(line.exact_amount), money_text(line.amount, currency)
        rows.append(
            f"rounded half up, once: {exact} → {amount} {currency}" if exact != amount else f"= {amount} {currency}"
        )
        return rows
    # The line bills a difference: its sum is that of the whole item, less what went before.
    whole = money_text(found.billed.amount + found.billed_before.amount, currency)
    before, amount = money_text(found.billed_before.amount, currency), money_text(line.amount, currency)
    number = line.evidence.get("billed_before", {}).get("number", "earlier invoices")
    rows.append(f"rounded half up, once: {whole} {currency} for the item in all")
    rows.append(f"{whole} - {before} billed before (first on {number}) = {amount} {currency}")
    return rows


def _ways(found: Explanation) -> Table:
    currency = found.invoice.currency
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("", "quantity", "exact amount", "amount", ""):
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    table.add_row(
        "billed", _grouped(found.billed.quantity), plain(found.billed.exact_amount), _money(found.billed, currency)
    )
    issued = _second(format_instant(found.invoice.issued_at))
    ways = (
        (f"single events received until {issued}", found.then),
        ("single events as of now", found.now),
        ("rollups as of now", found.rollups),
    )
    for name, way in ways:
        owed = way.less(found.billed_before)
        apart = owed.amount - found.billed.amount
        if apart:
            mark = Text(f"{'+' if apart > 0 else ''}{money_text(apart, currency)}", style="bold red")
        elif owed.bills_like(found.billed):
            mark = Text("=", style="green")
        else:
            mark = Text("same amount", style="yellow")
        table.add_row(name, _grouped(owed.quantity), plain(owed.exact_amount), _money(owed, currency), mark)
    return table


def _money(figures: Figures, currency: str) -> str:
    return money_text(figures.amount, currency)


def _grouped(quantity: Decimal) -> str:
    """Write a quantity with commas between thousands and without trailing zeros."""
    text = f"{quantity:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _since(console: Console, found: Explanation) -> None:
    changes = found.changes
    if not (changes.late or changes.taken_out or changes.put_down):
        return
    console.print()
    console.print(Text("Known only since the invoice", style="bold"))
    for sentence in changes.put_down:
        console.print(Padding(Text(sentence), (0, 0, 0, 2)))
    if not (changes.late or changes.taken_out):
        return
    counts = [f"{changes.late:,} received later"] if changes.late else []
    counts += [f"{changes.taken_out:,} voided or amended later"] if changes.taken_out else []
    console.print(Padding(Text(", ".join(counts)), (0, 0, 0, 2)))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("", "quantity", "happened", "received", "source", "id"):
        table.add_column(name, justify="right" if name == "quantity" else "left", overflow="fold")
    for behind in changes.first:
        event, taken = behind.event, behind.event.taken_out
        late = behind.state is EventState.LATE
        known = event.received_at if late or taken is None else taken.received_at
        sign = "+" if late else "-"
        quantity = behind.reading.text or plain(behind.reading.quantity)
        table.add_row(
            "late" if taken is None else f"{taken.kind}ed",
            f"{sign}{quantity}",
            _second(format_event_time(event.time_us)),
            _second(format_instant(known)),
            Text(event.source),
            Text(event.event_id),
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    left = changes.late + changes.taken_out - len(changes.first)
    if left > 0:
        console.print(
            Padding(Text(f"and {left:,} more; all of them with --events FILE.csv", style="dim"), (0, 0, 0, 2))
        )
    hours = hour_differences(found.then, found.now)
    for hour, then, now in hours[:_HOURS_SHOWN]:
        console.print(Padding(Text(f"hour {hour}: {_grouped(then)} → {_grouped(now)}", style="dim"), (0, 0, 0, 2)))
    if len(hours) > _HOURS_SHOWN:
        console.print(Padding(Text(f"and {len(hours) - _HOURS_SHOWN:,} more hours", style="dim"), (0, 0, 0, 2)))


def _word(outcome: Outcome) -> tuple[str, str]:
    return _WORDS.get(outcome, ("CANNOT BE DERIVED", "bold yellow"))


def _verdict(found: Explanation) -> Text:
    word, style = _word(found.outcome)
    verdict = Text.assemble((word, style), "  ")
    if found.failure is not None:
        return verdict.append(found.failure)
    currency = found.invoice.currency
    failed = [check.code for check in found.checks if not check.holds]
    if not failed:
        verdict.append(
            "what was billed is what comes out, from the price as stored, the rollups and the single events."
        )
        if found.later_invoices:
            verdict.append(f" What came later was billed by {', '.join(found.later_invoices)}.")
        return verdict
    if failed == ["nothing_since"]:
        verdict.append("the line was right when it was issued. ")
    if found.owed:
        what = "more is owed" if found.owed > 0 else "less is owed"
        verdict.append(f"As known now {money_text(abs(found.owed), currency)} {currency} {what} than was billed")
        verdict.append(
            "; the next invoice run of the period bills it." if found.owed > 0 and failed == ["nothing_since"] else "."
        )
    others = [code for code in failed if code != "nothing_since"]
    if others:
        verdict.append(f" Look at: {', '.join(others)}.")
    return verdict
