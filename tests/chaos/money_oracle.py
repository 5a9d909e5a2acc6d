"""What must come of money, worked out by hand, and what is found: tables, the provider's own ledger, files, mails.

Nothing of the product is used here: amounts are those of the seeded generator, sums as with pencil and paper.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from pypdf import PdfReader

from tests.chaos.money_world import BASE, METER, PRICE, Billing
from tests.chaos.row import Row


@dataclass(frozen=True)
class Owed:
    """An invoice that must exist once, and whether its money can be collected."""

    tenant: str
    amount: Decimal
    is_paid: bool = True


def monthly(row: Row, tenants: Iterable[str], month: str, *, is_paid: bool) -> list[Owed]:
    """Return what tenants owe for a month: the base fee, and 0.125 for each run, rounded to cents half up."""
    used = row.expected().periods
    return [
        Owed(
            tenant,
            BASE + cents(used.get((tenant, METER, month), (Decimal(), 0))[0] * PRICE),
            is_paid,
        )
        for tenant in tenants
    ]


def cents(amount: Decimal) -> Decimal:
    """Round to cents, half up."""
    return amount.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


def rows(row: Row, query: str, *parameters: Any) -> list[dict[str, Any]]:
    """Return what PostgreSQL holds, past the proxy."""
    with psycopg.connect(row.world.urls.postgres, row_factory=dict_row) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def judge_invoices(row: Row, owed: Sequence[Owed]) -> None:
    """Each invoice once with its amount; every number of every series once, none left out."""
    found = Counter(
        (one["tenant_id"], one["total"])
        for one in rows(row, "SELECT tenant_id, total FROM invoices WHERE tenant_id = ANY(%s)", row.tenants)
    )
    _count(row, "invoices", Counter((one.tenant, one.amount) for one in owed), found)
    judge_numbers(row)


def judge_numbers(row: Row) -> None:
    """Every series' numbers are 1, 2, 3, ... and the next one is the one after the last, over all rows of the world."""
    given: dict[str, list[int]] = defaultdict(list)
    for one in rows(row, "SELECT number FROM invoices WHERE number IS NOT NULL"):
        series, _, number = one["number"].rpartition("-")
        given[series].append(int(number))
    following = {
        one["series"]: one["next_number"] for one in rows(row, "SELECT series, next_number FROM invoice_series")
    }
    wanted = {series: max(numbers) + 1 for series, numbers in given.items()}
    row.must(following == wanted, f"series go on with {following}, expected {wanted}")
    for series, numbers in given.items():
        gaps = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        row.must(not gaps, f"{series}: {len(gaps)} numbers are on no invoice, such as {gaps[:5]}")
        row.must(len(set(numbers)) == len(numbers), f"{series}: numbers stand twice")


def judge_charges(row: Row, billing: Billing, owed: Sequence[Owed]) -> None:
    """The provider's own ledger: one charge per amount due that can be collected, nothing else."""
    charges = billing.standins.ledger()
    found = Counter((one["metadata"]["tenant_id"], Decimal(one["amount"]) / 100) for one in charges)
    _count(row, "charges", Counter((one.tenant, one.amount) for one in owed if one.is_paid), found)
    by_invoice = Counter(one["metadata"]["invoice_id"] for one in charges)
    twice = [invoice for invoice, times in by_invoice.items() if times > 1]
    row.must(not twice, f"{len(twice)} invoices were charged more than once, such as {twice[:3]}")


def judge_books(row: Row, owed: Sequence[Owed]) -> None:
    """Invoices, payments, settlements, announcements and the double entry agree with what is owed and was paid."""
    tenants = row.tenants
    invoices = rows(
        row,
        "SELECT invoice_id, tenant_id, total, amount_due, amount_paid, status FROM invoices WHERE tenant_id = ANY(%s)",
        tenants,
    )
    paid = Counter((one.tenant, one.amount) for one in owed if one.is_paid)
    settled = Counter((one["tenant_id"], one["amount_paid"]) for one in invoices if one["status"] == "paid")
    row.must(settled == paid, f"invoices that are paid: {_shown(paid, settled)}")
    open_ones = Counter((one.tenant, one.amount) for one in owed if not one.is_paid)
    left = Counter((one["tenant_id"], one["amount_due"]) for one in invoices if one["status"] == "finalized")
    row.must(left == open_ones, f"invoices that are open: {_shown(open_ones, left)}")
    _judge_announcements(row, [one["invoice_id"] for one in invoices], sum(paid.values()))
    _judge_payments(row, {one["invoice_id"]: one for one in invoices})
    _judge_postings(row, owed)


def _judge_announcements(row: Row, invoices: list[str], paid: int) -> None:
    told = Counter(
        one["topic"]
        for one in rows(
            row,
            "SELECT topic FROM outbox WHERE convert_from(payload, 'UTF8')::jsonb ->> 'invoice_id' = ANY(%s)",
            invoices,
        )
    )
    row.must(told["invoice.finalized"] == len(invoices), f"{len(invoices)} invoices were announced as {dict(told)}")
    row.must(told["payment.settled"] == paid, f"{paid} payments were announced as {dict(told)}")
    [one] = rows(row, "SELECT count(*) AS n FROM outbox WHERE published_at IS NULL")
    row.must(one["n"] == 0, f"{one['n']} announcements were never published")


def _judge_payments(row: Row, invoices: dict[str, dict[str, Any]]) -> None:
    """At most one payment that succeeded per invoice, settled once; and a trail without a break to every state."""
    payments = rows(row, "SELECT * FROM payments WHERE tenant_id = ANY(%s)", row.tenants)
    trail: dict[str, list[tuple[str | None, str]]] = defaultdict(list)
    for one in rows(
        row,
        "SELECT subject_id, status_before, status_after FROM payment_changes WHERE subject = 'payment'"
        " AND tenant_id = ANY(%s) ORDER BY change_id",
        row.tenants,
    ):
        trail[one["subject_id"]].append((one["status_before"], one["status_after"]))
    for payment in payments:
        name, steps = payment["payment_id"], trail.pop(payment["payment_id"], [])
        follows = [before for before, _ in steps[1:]] == [after for _, after in steps[:-1]]
        begins = bool(steps) and steps[0][0] is None
        row.must(begins and follows, f"the trail of {name} is broken: {steps}")
        row.must(bool(steps) and steps[-1][1] == payment["status"], f"{name} is {payment['status']}, trail: {steps}")
    row.must(not trail, f"a trail without a payment: {list(trail)[:3]}")
    settled = Counter(one["invoice_id"] for one in payments if one["status"] == "succeeded")
    put_down = Counter(
        {
            one["invoice_id"]: one["n"]
            for one in rows(
                row,
                "SELECT s.invoice_id, count(*) AS n FROM settlements AS s JOIN payments USING (payment_id)"
                " WHERE tenant_id = ANY(%s) GROUP BY s.invoice_id",
                row.tenants,
            )
        }
    )
    row.must(settled == put_down, f"payments and settlements differ: {_shown(settled, put_down)}")
    once = {name for name, times in settled.items() if times == 1}
    paid = {name for name, one in invoices.items() if one["status"] == "paid"}
    row.must(once == paid == set(settled), f"paid invoices without one payment: {sorted(once ^ paid)[:3]}")


def _judge_postings(row: Row, owed: Sequence[Owed]) -> None:
    """Debits less credits by account: what is open, what was earned, what came in; each entry balances by itself."""
    wanted: dict[str, Decimal] = defaultdict(Decimal)
    for due in owed:
        wanted["revenue"] -= due.amount
        wanted["cash:stripe" if due.is_paid else "receivable"] += due.amount
    found = {
        one["account"]: one["net"]
        for one in rows(
            row,
            "SELECT account, sum(debit) - sum(credit) AS net FROM ledger_postings WHERE tenant_id = ANY(%s)"
            " GROUP BY account",
            row.tenants,
        )
    }
    sums = {name: net for name, net in found.items() if net}
    row.must(sums == dict(wanted), f"the ledger's accounts: expected {dict(wanted)}, found {sums}")
    unbalanced = rows(
        row,
        "SELECT entry_id FROM ledger_postings GROUP BY entry_id, currency HAVING sum(debit) <> sum(credit)"
        " UNION SELECT entry_id FROM ledger_entries EXCEPT SELECT entry_id FROM ledger_postings",
    )
    row.must(not unbalanced, f"{len(unbalanced)} entries of the ledger do not balance")


def judge_documents(row: Row, billing: Billing) -> None:
    """Each invoice has its PDF, whole, as recorded and readable, and no other file is there."""
    found = rows(
        row,
        "SELECT i.number, d.location, d.sha256, d.bytes FROM invoices AS i LEFT JOIN invoice_documents AS d"
        " ON d.invoice_id = i.invoice_id AND media_type = 'application/pdf' WHERE i.tenant_id = ANY(%s)",
        row.tenants,
    )
    known = set()
    for one in found:
        if one["location"] is None:
            row.must(False, f"{one['number']} has no PDF")
            continue
        path = billing.documents / one["location"]
        known.add(path.resolve())
        row.must(path.is_file(), f"{path.name} is not there")
        if not path.is_file():
            continue
        content = path.read_bytes()
        whole = content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF") and len(content) == one["bytes"]
        row.must(whole, f"{path.name} is not whole: {len(content)} of {one['bytes']} bytes")
        row.must(hashlib.sha256(content).hexdigest() == one["sha256"], f"{path.name} is not what was recorded")
        if whole:
            row.must(one["number"] in (PdfReader(path).pages[0].extract_text() or ""), f"{path.name} is another's")
    # What rows before this one issued and nobody had rendered yet is rendered here, too.
    every = rows(row, "SELECT location FROM invoice_documents WHERE media_type = 'application/pdf'")
    known |= {(billing.documents / one["location"]).resolve() for one in every}
    strange = {path.resolve() for path in billing.documents.rglob("[!.]*.pdf")} - known
    row.must(not strange, f"{len(strange)} PDFs belong to no invoice")


async def judge_with_own_proofs(row: Row, billing: Billing) -> None:
    """The product's own proofs find nothing either."""
    commands = (("ledger", "check"), ("invoice", "numbers", "--check"))
    told = await asyncio.gather(*(asyncio.to_thread(billing.meterbook, *command) for command in commands))
    for command, done in zip(commands, told, strict=True):
        row.must(done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr)[-600:]}")


def state_of(row: Row, billing: Billing) -> dict[str, Any]:
    """Return what running anything again must not change."""
    tables = ("invoices", "invoice_lines", "ledger_entries", "payments", "payment_changes", "settlements", "outbox")
    counts = {table: rows(row, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables}
    files = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(billing.documents).rglob("[!.]*"))
        if path.is_file()
    }
    return {**counts, "charges": len(billing.standins.ledger()), "files": files}


def _count(row: Row, what: str, wanted: Counter[Any], found: Counter[Any]) -> None:
    """Put what is missing, there too often, or there for nothing into the verdict."""
    tenants = {key[0] for key in wanted}
    missing, beyond = wanted - found, found - wanted
    phantom = sum(times for key, times in beyond.items() if key[0] not in tenants)
    row.verdict.lost += missing.total()
    row.verdict.phantom += phantom
    row.verdict.doubled += beyond.total() - phantom
    row.must(wanted == found, f"{what}: {_shown(wanted, found)}")


def _shown(wanted: Counter[Any], found: Counter[Any]) -> str:
    missing, beyond = wanted - found, found - wanted
    return (
        f"{missing.total()} of {wanted.total()} missing, {beyond.total()} beyond;"
        f" such as {list(missing.items())[:2]} and {list(beyond.items())[:2]}"
    )
