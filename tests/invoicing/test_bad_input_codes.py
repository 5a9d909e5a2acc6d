"""The codes of refusals where money enters: the document lists those that the sources have, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
DOCUMENT = CHECKOUT / "docs" / "refusals.md"
# What operators set up is refused at the start of a process, not where money enters; its codes are told there.
SET_UP = (
    "invoicing/adapters/", "invoicing/domain/seller.py", "invoicing/domain/tax/seller_tax.py",
    "invoicing/domain/tax/tables.py", "invoicing/tax_commands.py", "invoicing/explain_command.py",
    "invoicing/render_invoice.py", "payments/bank/domain/csv_profile.py", "payments/dunning/",
    "payments/adapters/paypal_provider.py", "payments/adapters/stripe_provider.py", "payments/open_providers.py",
    "payments/adapters/stripe_catalogue.py", "payments/domain/price_list.py", "payments/adapters/action_mail.py",
)  # fmt: skip
# Put together of parts, or said by `core` of what these packages read.
MADE = {
    "conflict", "invalid_period", "malformed_message", "not_found", "refused_by_provider", "tombstone",
    "unknown_dispute", "unknown_refund", "wrong_account",
}  # fmt: skip
# Who takes the code first, and who a place before it.
CODE_FIRST = {"Fault", "Refusal", "refusal", "_refuse", "_refused"}
CODE_SECOND = {"fault"}
CODE = re.compile(r"[a-z]+(_[a-z]+)*")


def codes_of(file: Path) -> Iterator[str]:
    """Yield what a source gives as codes: to a fault, to a refusal, or as an error's own."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            at = 0 if name in CODE_FIRST else 1 if name in CODE_SECOND else len(node.args)
            found = node.args[at : at + 1]
        elif isinstance(node, ast.ClassDef):
            own = [part for part in node.body if isinstance(part, ast.Assign)]
            found = [part.value for part in own if ast.unparse(part.targets[0]) == "code"]
        texts = [one.value for one in found if isinstance(one, ast.Constant)]
        yield from (text for text in texts if isinstance(text, str) and CODE.fullmatch(text))


def sources() -> Iterator[Path]:
    for package in ("invoicing", "payments", "ledger"):
        for file in sorted((CHECKOUT / package).rglob("*.py")):
            if not str(file.relative_to(CHECKOUT)).startswith(SET_UP):
                yield file


def test_the_document_lists_every_code_once() -> None:
    told = re.findall(r"^\| `([a-z_]+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(told) == len(set(told)), "a code has one meaning"
    assert told == sorted(told)
    has = {code for file in sources() for code in codes_of(file)} | MADE
    assert set(told) - has == set(), "the document lists codes that nothing says any more"
    assert has - set(told) == set(), "the document lacks codes: add what each means"
