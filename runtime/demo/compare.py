"""Holds what came out against the oracle: ClickHouse, Redis, dead letters, invoices, payments. Every check is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runtime.demo.observe import Hourly
from runtime.demo.oracle import Truth, expected_total
from runtime.demo.usage import Usage


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison with its outcome."""

    name: str
    passed: bool
    detail: str


def compare_usage(name: str, found: Hourly, expected: Mapping[tuple[str, str, str], Decimal]) -> Check:
    """Compare totals by (tenant, meter, period) exactly; missing and superfluous keys are differences too."""
    wrong = [key for key in {*found, *expected} if found.get(key, Decimal(0)) != expected.get(key, Decimal(0))]
    if not wrong:
        return Check(name, True, f"{len(expected):,} totals equal to the last digit")
    first = sorted(wrong)[0]
    return Check(
        name,
        False,
        f"{len(wrong)} of {len(expected)} differ, first {first}: {found.get(first)} instead of {expected.get(first)}",
    )


def compare_dead_letters(letters: list[tuple[dict[str, str], bytes | None]], usage: Usage) -> Check:
    """Compare codes and bytes of what was refused with what was sent to be refused."""
    expected = Counter((code, body) for code, body in usage.poison)
    found = Counter((headers["code"], body) for headers, body in letters)
    detail = f"{len(letters)} kept byte for byte with code and reason"
    if found != expected:
        detail = f"missing {list((expected - found).keys())[:3]}, superfluous {list((found - expected).keys())[:3]}"
    return Check("bad events are dead letters", found == expected, detail)


def compare_invoices(invoices: list[dict[str, Any]], usage: Usage, truths: Mapping[str, Truth]) -> list[Check]:
    """Compare each tenant's invoices with the oracle's amounts; `truths` are the oracle's totals by month."""
    wrong = []
    expected_sum = found_sum = Decimal(0)
    for index, (month, truth) in enumerate(sorted(truths.items())):
        for tenant in usage.tenants:
            if index and tenant.plan == "airgapped":
                continue
            expected = expected_total(tenant, truth)
            found = sum((i["total"] for i in invoices if _belongs(i, tenant.tenant_id, month)), Decimal(0))
            expected_sum += expected
            found_sum += found
            if found != expected:
                wrong.append(f"{tenant.tenant_id} {month}: {found} instead of {expected}")
    amounts = Check(
        "invoices equal the independent computation",
        not wrong,
        "; ".join(wrong) if wrong else f"{len(invoices)} invoices, {found_sum:,.2f} = {expected_sum:,.2f} USD",
    )
    sums = [i["invoice_id"] for i in invoices if sum((li["amount"] for li in i["lines"]), Decimal(0)) != i["total"]]
    lines = Check("lines add up to their invoice", not sums, ", ".join(sums) or f"{len(invoices)} invoices")
    numbers = sorted(i["number"] for i in invoices)
    serial = [int(number.rsplit("-", 1)[1]) for number in numbers]
    gapless = serial == list(range(1, len(serial) + 1))
    return [amounts, lines, Check("invoice numbers have no gap", gapless, f"{numbers[0]} to {numbers[-1]}")]


def compare_payments(invoices: list[dict[str, Any]], ledger: list[dict[str, Any]]) -> list[Check]:
    """Compare the provider's own ledger with the invoices: each amount due charged once, and marked paid."""
    due = {i["invoice_id"]: i["total"] for i in invoices if i["total"] > 0}
    charged = Counter(charge["metadata"]["invoice_id"] for charge in ledger)
    wrong = [
        charge["metadata"]["invoice_id"]
        for charge in ledger
        if Decimal(charge["amount"]) != due.get(charge["metadata"]["invoice_id"], Decimal(0)) * 100
    ]
    once = charged == Counter(due.keys()) and not wrong
    unpaid = [i["number"] for i in invoices if i["status"] != "paid"]
    return [
        Check("the provider's ledger: one charge per amount due", once, f"{len(ledger)} charges for {len(due)} dues"),
        Check("all invoices are paid", not unpaid, ", ".join(unpaid) or f"{len(invoices)} invoices"),
    ]


def _belongs(invoice: dict[str, Any], tenant: str, month: str) -> bool:
    return bool(invoice["tenant_id"] == tenant and invoice["period_start"].strftime("%Y-%m") == month)
