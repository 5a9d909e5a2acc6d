"""What a simulation came to, on a terminal: revenue first, then who moves, then what has no price."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from core.money import minor_units
from rating.domain.price import plain
from rating.domain.price_comparison import Mover, OfCurrency, Totals, percent

_CHARGES_SHOWN = 20
_UNPRICED_SHOWN = 20


def print_totals(totals: Totals, console: Console, *, question: str, period: str) -> None:
    """Print the totals; `question` says what was simulated."""
    console.print()
    console.print(Text.assemble((question, "bold"), (f"   {period} · {_tenants(totals.tenants)}", "dim")))
    for currency, found in sorted(totals.by_currency.items()):
        if found.sums.periods:
            _print_currency(found, currency, console)
    if not any(found.sums.periods for found in totals.by_currency.values()):
        console.print("Nothing could be compared.")
    _print_unpriced(totals, console)
    for note, count in sorted(totals.not_compared.items()):
        said = f"{count:,} billing periods left out: {note} (such as {totals.examples[note]})"
        console.print(Text(said, style="yellow"))


def _print_currency(found: OfCurrency, currency: str, console: Console) -> None:
    sums = found.sums
    console.print()
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in (currency, "amount", "change", ""):
        table.add_column(name, justify="right" if name in ("amount", "change") else "left")
    billed, present, new = (_money(amount, currency) for amount in (sums.billed, sums.present, sums.new))
    table.add_row("billed", billed, "", Text("on invoices, after coupons", style="dim"))
    table.add_row("present prices", present, "", Text("the same usage by the prices held", style="dim"))
    change = _change(sums.difference, sums.present, currency)
    table.add_row(Text("other prices", style="bold"), Text(new, style="bold"), change)
    console.print(table)
    console.print()
    console.print(
        Text.assemble(
            (_tenants(found.more), "bold"), " would pay more, ", (f"{found.less:,}", "bold"), " less, ",
            (f"{found.unchanged:,}", "bold"), " the same",
        )
    )  # fmt: skip
    moved = sorted(
        ((new - present, charge_id, present, new) for charge_id, (present, new) in found.charges.items()),
        key=lambda one: (-abs(one[0]), one[1]),
    )
    rows = [(charge_id, present, new) for difference, charge_id, present, new in moved if difference]
    _print_rows("By charge", "charge", rows[:_CHARGES_SHOWN], currency, console, len(rows) - _CHARGES_SHOWN)
    _print_movers("Would pay most more", found.most, currency, console)
    _print_movers("Would pay most less", found.least, currency, console)


def _print_movers(title: str, movers: Sequence[Mover], currency: str, console: Console) -> None:
    rows = [(one.tenant_id, one.present, one.new) for one in movers]
    _print_rows(title, "tenant", rows, currency, console)


def _print_rows(
    title: str,
    what: str,
    rows: Sequence[tuple[str, Decimal, Decimal]],
    currency: str,
    console: Console,
    left_out: int = 0,
) -> None:
    if not rows:
        return
    console.print()
    console.print(Text(title, style="bold"))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in (what, "present", "new", "difference"):
        table.add_column(name, justify="left" if name == what else "right", overflow="fold")
    for name, present, new in rows:
        change = _change(new - present, present, currency)
        table.add_row(Text(name), _money(present, currency), _money(new, currency), change)
    console.print(Padding(table, (0, 0, 0, 2)))
    if left_out > 0:
        console.print(Padding(Text(f"and {left_out:,} more", style="dim"), (0, 0, 0, 2)))


def _print_unpriced(totals: Totals, console: Console) -> None:
    if not totals.unpriced:
        return
    console.print()
    console.print(Text("Usage without a price under the other prices", style="bold yellow"))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("meter", "of", "quantity", "billing periods", "of them without a price now"):
        table.add_column(name, justify="left" if name in ("meter", "of") else "right", overflow="fold")
    ordered = sorted(totals.unpriced.items(), key=lambda item: (item[1].without_price_now - item[1].periods, item[0]))
    for (meter_id, values), found in ordered[:_UNPRICED_SHOWN]:
        quantity = f"{plain(found.quantity)} {found.unit}".strip()
        table.add_row(
            Text(meter_id),
            Text(values or "the whole meter"),
            quantity,
            f"{found.periods:,}",
            f"{found.without_price_now:,}",
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    if len(ordered) > _UNPRICED_SHOWN:
        console.print(Padding(Text(f"and {len(ordered) - _UNPRICED_SHOWN:,} more (--json)", style="dim"), (0, 0, 0, 2)))


def _change(difference: Decimal, present: Decimal, currency: str) -> Text:
    if not difference:
        return Text("no change", style="dim")
    share = percent(difference, present)
    sign = "+" if difference > 0 else ""
    said = f"{sign}{_money(difference, currency)}" + (f" ({sign}{share:f} %)" if share is not None else " (new)")
    return Text(said, style="green" if difference > 0 else "red")


def _tenants(count: int) -> str:
    return f"{count:,} tenant{'' if count == 1 else 's'}"


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount:,.{minor_units(currency)}f}"
