"""What the bank desk shows: to people on a terminal, to programs as JSON. Amounts are strings in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from payments.bank.confirm_match import Confirmed
from payments.bank.domain.continuity import first_of, gap, last_of
from payments.bank.domain.match import Fit, Proposal
from payments.bank.import_statement import Imported
from payments.bank.ports import AccountState, Allocation, BankEntry
from payments.bank.propose_matches import Proposed

# In a file or a pipe there is no width to fit: lines stay whole.
_WIDTH_WITHOUT_TERMINAL = 160
_FIT_WORDS = {
    Fit.EXACT: "to the cent",
    Fit.SHORT: "short by fees",
    Fit.PARTIAL: "a part",
    Fit.OVER: "too much",
    Fit.PAID_BEFORE: "paid before",
    Fit.RETURN: "takes back",
}
_SURE, _LIKELY = 90, 50


def print_imported(done: Sequence[Imported], confirmed: Sequence[Confirmed]) -> None:
    """Tell what became of each statement of a file."""
    console = _console()
    for each in done:
        said = each.statement
        what = f"{len(each.new_entries)} of {len(said.entries)} entries are new"
        if not each.is_new:
            what = "imported before, nothing new"
        console.print(Text(f"{each.account_id}  statement {said.number or said.closed_on}: {what}", style="bold"))
        days = f"{said.opened_on} {_money(said.opening, said.currency)}  →  {said.closed_on}"
        console.print(Text(f"  {days} {_money(said.closing, said.currency)}"))
        if each.gap:
            reason = "a statement is missing between, or one came twice in other words"
            console.print(
                Text(f"  books and bank differ by {_money(each.gap, said.currency)}: {reason}", style="yellow")
            )
    for one in confirmed:
        paid = sum((part.amount for part in one.allocations), Decimal(0))
        console.print(Text(f"  {one.entry.entry_id}: {_money(paid, one.entry.currency)} confirmed by the rule"))


def print_proposals(found: Sequence[Proposed]) -> None:
    """Show each entry that waits, and under it what it may be for."""
    console = _console()
    if not found:
        console.print(Text("No entry waits."))
    for each in found:
        console.print(Group(_entry_line(each.entry), Padding(_proposal_table(each), (0, 0, 1, 2))))


def print_confirmed(done: Confirmed) -> None:
    """Tell what was written."""
    console, currency = _console(), done.entry.currency
    for each in done.allocations:
        console.print(Text(f"{_money(each.amount, currency)} {_allocation_words(each, currency)}"))
    state = f"{_money(done.left, currency)} stays open" if done.left else "nothing is left of it"
    console.print(Text(f"{done.entry.entry_id}: {state}", style="bold"))


def print_status(accounts: Sequence[AccountState]) -> None:
    """Show each account: up to when its statements go, whether books and bank agree, what waits."""
    console = _console()
    if not accounts:
        console.print(Text("No statement was imported yet."))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, side in (
        ("account", "left"), ("from", "left"), ("until", "left"), ("bank's balance", "right"), ("gap", "right"),
        ("entries", "right"), ("open", "right"), ("to allocate", "right"),
    ):  # fmt: skip
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True)
    for one in accounts:
        missing = gap(one.spans, one.moved)
        table.add_row(
            one.account_id,
            str(first_of(one.spans).opened_on),
            str(last_of(one.spans).closed_on),
            _money(last_of(one.spans).closing, one.currency),
            Text(f"{missing:,f}" if missing else "none", style="yellow" if missing else "green"),
            str(one.entries),
            str(one.open_entries),
            _money(one.open_amount, one.currency),
        )
    console.print(table)


def imported_fields(one: Imported) -> dict[str, Any]:
    """Return a statement as JSON has it."""
    said = one.statement
    return {
        "statement_id": one.statement_id,
        "account_id": one.account_id,
        "number": said.number,
        "format": said.format,
        "currency": said.currency,
        "opened_on": str(said.opened_on),
        "opening": f"{said.opening:f}",
        "closed_on": str(said.closed_on),
        "closing": f"{said.closing:f}",
        "entries": len(said.entries),
        "new": one.is_new,
        "new_entries": [entry_fields(entry) for entry in one.new_entries],
        "gap": f"{one.gap:f}",
    }


def entry_fields(entry: BankEntry) -> dict[str, Any]:
    """Return an entry as JSON has it; `amount` is signed, money that came in is positive."""
    return {
        "entry_id": entry.entry_id,
        "account_id": entry.account_id,
        "booked_on": str(entry.booked_on),
        "valued_on": str(entry.valued_on),
        "amount": f"{entry.amount:f}",
        "left": f"{entry.left:f}",
        "currency": entry.currency,
        "status": entry.status,
        "is_reversal": entry.is_reversal,
        "counterparty": entry.counterparty,
        "counterparty_account": entry.counterparty_account,
        "remittance": entry.remittance,
        "references": list(entry.reference_texts),
        "bank_reference": entry.bank_reference,
        "note": entry.note,
    }


def proposed_fields(each: Proposed) -> dict[str, Any]:
    """Return an entry with its proposals as JSON has them."""
    return {**entry_fields(each.entry), "proposals": [_proposal_fields(one) for one in each.proposals]}


def confirmed_fields(done: Confirmed) -> dict[str, Any]:
    """Return what was confirmed as JSON has it."""
    return {
        "entry_id": done.entry.entry_id,
        "left": f"{done.left:f}",
        "currency": done.entry.currency,
        "allocations": [
            {
                "allocation_id": each.allocation_id,
                "kind": each.kind,
                "amount": f"{each.amount:f}",
                "fee": f"{each.fee:f}",
                "tenant_id": each.tenant_id,
                "payment_id": each.payment_id,
                "credit_id": each.grant_id,
                "returned_id": each.returned_id,
                "confirmed_by": each.confirmed_by,
            }
            for each in done.allocations
        ],
    }


def account_fields(one: AccountState) -> dict[str, Any]:
    """Return an account's state as JSON has it."""
    return {
        "account_id": one.account_id,
        "currency": one.currency,
        "from": str(first_of(one.spans).opened_on),
        "until": str(last_of(one.spans).closed_on),
        "balance": f"{last_of(one.spans).closing:f}",
        "gap": f"{gap(one.spans, one.moved):f}",
        "entries": one.entries,
        "open_entries": one.open_entries,
        "open_amount": f"{one.open_amount:f}",
    }


def _proposal_fields(one: Proposal) -> dict[str, Any]:
    return {
        "score": one.score,
        "fit": one.fit.value,
        "invoices": [
            {"invoice_id": part.invoice_id, "number": part.number, "amount": f"{part.amount:f}", "fee": f"{part.fee:f}"}
            for part in one.parts
        ],
        "rest": f"{one.rest:f}",
        "tenants": list(one.tenant_ids),
        "returns": one.returns,
        "reasons": [{"code": each.code, "text": each.text, "points": each.points} for each in one.reasons],
    }


def _entry_line(entry: BankEntry) -> Text:
    amount = _money(entry.left if entry.amount > 0 else -entry.left, entry.currency)
    line = Text.assemble(
        (entry.entry_id, "bold"), "  ", str(entry.booked_on), "  ", (amount, "bold"), "  ", entry.counterparty or "?"
    )
    said = " · ".join(each for each in (entry.remittance, *entry.reference_texts) if each)
    if said:
        line.append(f"\n  “{said}”", style="italic")
    if entry.allocated:
        line.append(f"\n  {_money(entry.allocated, entry.currency)} of it was confirmed by {entry.decided_by}")
    return line


def _proposal_table(each: Proposed) -> RenderableType:
    if not each.proposals:
        return Text("nothing speaks for any invoice", style="dim")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    currency = each.entry.currency
    for one in each.proposals:
        style = "green" if one.score >= _SURE else "yellow" if one.score >= _LIKELY else "dim"
        parts = [
            f"{part.number}  {_money(part.amount, currency)}" + (f" + {part.fee:,f} fees" if part.fee else "")
            for part in one.parts
        ]
        if one.returns is not None:
            parts.append(one.returns)
        if one.rest:
            parts.append(f"rest {_money(one.rest, currency)}")
        reasons = "\n".join(f"{reason.points:+3d}  {reason.text}" for reason in one.reasons)
        table.add_row(Text(f"{one.score}", style=style), _FIT_WORDS[one.fit], Text("\n".join(parts)), Text(reasons))
    return table


def _allocation_words(each: Allocation, currency: str) -> str:
    if each.kind == "invoice":
        fee = f" (with {_money(each.fee, currency)} of bank fees that we bear)" if each.fee else ""
        return f"paid an invoice of {each.tenant_id}: {each.payment_id}{fee}"
    if each.kind == "credit":
        return f"is credit of {each.tenant_id}: {each.grant_id}"
    if each.kind == "held":
        return f"is held for {each.tenant_id}, to be given back"
    return f"taken back of {each.returned_id}"


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount:,f} {currency}"


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)
