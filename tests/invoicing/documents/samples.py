"""Snapshots of documents as they may be: every tier, language, currency, kind of tax; names that are hard to print."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from core.creditor_reference import creditor_reference, print_reference

TIERS = ("zero", "zero_pay_per_execution", "shared", "lite", "enterprise", "airgapped")
ARABIC = "شركة الأمل للتجارة والخدمات السحابية ذ.م.م."
HEBREW = "חברת אור לפיתוח תוכנה בע״מ"
EMOJI = "Fjord & Söhne 🚀🌊 GmbH 👩‍💻"
LONG = (
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft mit beschränkter Haftung & Co. KG"
)
SELLER: dict[str, Any] = {
    "name": "Meterbook Example GmbH",
    "address": ["Beispielstraße 12", "10115 Berlin"],
    "country": "DE",
    "email": "billing@meterbook.example",
    "website": "meterbook.example",
    "tax_id": "HRB 000000 B",
    "vat_number": "DE123456788",
    "number_prefix": "MB",
    "colour": "#0f766e",
    "payment_terms": "Payable without deduction by the due date.",
    "footer": "Meterbook Example GmbH · Beispielstraße 12, 10115 Berlin · billing@meterbook.example",
}
IBAN = {"holder": "Meterbook Example GmbH", "bank": "Beispielbank, Köln", "iban": "DE89 3704 0044 0532 0130 00",
        "bic": "EXMPDEFF", "currency": "EUR"}  # fmt: skip
US_ACCOUNT = {"holder": "Meterbook Example Inc.", "bank": "Example Bank, New York", "account_number": "000123456789",
              "routing": "123456780", "bic": "EXMPUS33", "currency": "USD"}  # fmt: skip


def line(
    description: str,
    amount: str,
    *,
    kind: str = "usage",
    quantity: str = "1",
    unit: str = "",
    unit_amount: str | None = None,
    per: int = 1,
    meter: str | None = None,
    category: str = "S",
    rate: str = "19",
    corrects: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One line of a snapshot of format 3."""
    return {
        "description": description,
        "kind": kind,
        "meter_id": meter,
        "quantity": quantity,
        "unit": unit,
        "unit_amount": unit_amount,
        "per": per,
        "amount": amount,
        "corrects": corrects,
        "net": amount,
        "tax_category": category,
        "tax_rate": rate,
        **more,
    }


def usual_lines(category: str = "S", rate: str = "19") -> list[tuple[str, list[dict[str, Any]]]]:
    """A month on Lite: base fee, allowances, tokens per thousand, hours."""
    facts = {"category": category, "rate": rate}
    tokens = {"unit": "token", "per": 1000, "meter": "llm_input_tokens"}
    return [
        ("Subscription", [line("Lite base fee", "99.00", kind="fixed", unit_amount="99", **facts)]),
        (
            "Usage",
            [
                line("Agent executions — included, up to 100,000", "0.00", quantity="100000", unit="execution",
                     unit_amount="0", meter="agent_executions", **facts),
                line("Agent executions — beyond 100,000", "10.00", quantity="20000", unit="execution",
                     unit_amount="0.0005", meter="agent_executions", **facts),
                line("LLM input tokens — gpt4", "37.04", quantity="1234567", unit_amount="0.03", **tokens, **facts),
                line("CPU", "5.03", quantity="100.5", unit="vCPU-hour", unit_amount="0.05", meter="cpu", **facts),
            ],
        ),
    ]  # fmt: skip


def snapshot(
    tier: str = "lite",
    language: str = "en",
    *,
    currency: str = "EUR",
    country: str = "DE",
    name: str = "Acme Ltd.",
    groups: list[tuple[str, list[dict[str, Any]]]] | None = None,
    category: str = "S",
    rate: str = "19",
    place: str = "DE",
    kind: str = "invoice",
    credits_applied: str = "0.00",
    corrects: list[dict[str, Any]] | None = None,
    tax: dict[str, Any] | None = None,
    seller: dict[str, Any] | None = None,
    bill_to: dict[str, Any] | None = None,
    places: int = 2,
    sequence: int = 1,
    transfer: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A snapshot of format 3 whose sums are right. Taxes are one group per category and rate of the lines."""
    shown = groups if groups is not None else usual_lines(category, rate)
    if kind == "credit_note":
        shown = [(group, [negative(one) for one in lines]) for group, lines in shown]
    step = Decimal(1).scaleb(-places)
    lines = [one for _, each in shown for one in each]
    taxes = []
    for key in dict.fromkeys((one["tax_category"], one["tax_rate"]) for one in lines):
        base = sum(
            (Decimal(one["amount"]) for one in lines if (one["tax_category"], one["tax_rate"]) == key), Decimal(0)
        )
        amount = (base * Decimal(key[1]) / 100).quantize(step, rounding="ROUND_HALF_UP")
        taxes.append({"category": key[0], "rate": key[1], "place": place if key[0] == "S" else "", "kind": "vat",
                      "reason_code": "", "note_code": "", "note": "", "base": f"{base:.{places}f}",
                      "tax": f"{amount:.{places}f}", **(tax or {})})  # fmt: skip
    subtotal = sum((Decimal(one["amount"]) for one in lines), Decimal(0))
    taxed = sum((Decimal(one["tax"]) for one in taxes), Decimal(0))
    total = subtotal + taxed
    number = "MB-CN-2026-000007" if kind == "credit_note" else "MB-2026-000042"
    reference = creditor_reference(number)
    accounts = [account for account in (IBAN, US_ACCOUNT) if account["currency"] == currency]
    due = Decimal(0) if kind == "credit_note" else total - Decimal(credits_applied)
    return {
        "format": 3,
        "kind": kind,
        "language": language,
        "time_zone": "UTC",
        "seller": {**SELLER, **(seller or {})},
        "bill_to": {
            "tenant_id": "acme",
            "name": name,
            "email": "ap@acme.example",
            "address": ["1 Long Road", "Townville"],
            "country": country,
            **(bill_to or {}),
        },
        "invoice": {
            "invoice_id": "inv_sample",
            "number": number,
            "sequence": sequence,
            "currency": currency,
            "issued_at": "2026-11-03T00:00:00Z",
            "due_at": "2026-11-18T00:00:00Z",
            "due_days": 15,
            "period_start": "2026-10-01T00:00:00Z",
            "period_end": "2026-11-01T00:00:00Z",
        },
        "corrects": corrects or [],
        "plan": {"id": tier, "name": tier.replace("_", " ").title(), "version": 1},
        "groups": [{"name": group, "lines": each} for group, each in shown],
        "taxes": taxes,
        "subtotal": f"{subtotal:.{places}f}",
        "tax": f"{taxed:.{places}f}",
        "total": f"{total:.{places}f}",
        "credits_applied": credits_applied,
        "amount_due": f"{due:.{places}f}",
        "transfer": transfer
        or (
            {"reference": reference, "reference_printed": print_reference(reference), "accounts": accounts}
            if accounts
            else None
        ),
        "annex": annex(),
    }


def negative(one: dict[str, Any]) -> dict[str, Any]:
    """A line as a credit note of the books has it."""
    quantity = one["quantity"] if one["quantity"].startswith("-") else f"-{one['quantity']}"
    amount = one["amount"][1:] if one["amount"].startswith("-") else f"-{one['amount']}"
    amount = amount if Decimal(amount) else amount.lstrip("-")
    return {**one, "quantity": quantity, "amount": amount, "net": amount}


def annex() -> dict[str, Any]:
    """Three meters with usage on some days."""
    days = [f"2026-10-{day:02}" for day in (1, 2, 3, 5, 8, 9, 10, 15, 17, 22, 23, 28, 31)]
    return {
        "digest": "8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1",
        "tables": [
            {"meter_id": "agent_executions", "title": "Agent executions", "dimensions": [], "unit": "execution",
             "total": "120000", "events": "5120", "days": [[day, "9230"] for day in days[:-1]] + [[days[-1], "9240"]]},
            {"meter_id": "llm_input_tokens", "title": "LLM input tokens", "dimensions": ["gpt4"], "unit": "token",
             "total": "1234567", "events": "830", "days": [["2026-10-03", "1234567"]]},
            {"meter_id": "cpu", "title": "CPU", "dimensions": [], "unit": "vCPU-hour", "total": "100.5",
             "events": "31", "days": [["2026-10-04", "100.5"]]},
        ],
    }  # fmt: skip


def many_lines(count: int = 200) -> list[tuple[str, list[dict[str, Any]]]]:
    """A long invoice, with a coupon."""
    usage = [
        line(f"Data transfer out — region-{number:03}, {'eu' if number % 2 else 'us'}", "1.37", quantity="13.7",
             unit="GB", unit_amount="0.1", meter="network_egress")
        for number in range(count - 2)
    ]  # fmt: skip
    return [
        ("Subscription", [line("Lite base fee", "99.00", kind="fixed", unit_amount="99")]),
        ("Usage", usage),
        ("Coupons", [line("Launch partner 10 %", "-9.90", kind="coupon")]),
    ]
