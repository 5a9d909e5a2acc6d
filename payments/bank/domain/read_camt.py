"""Reads CAMT.053 (ISO 20022, BankToCustomerStatement, versions 02 and 08) strictly, without entities and network.

A batch entry, one movement that stands for several transfers, is taken apart where the bank says what each of them was
and they add up to it; otherwise it stays one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeAlias

from lxml import etree

from core.errors import Fault, InvalidInputError
from core.money import MINOR_UNITS
from payments.bank.domain.statement import (
    BYTES_MAX,
    Statement,
    StatementEntry,
    at,
    check_statement,
    clean_reference,
    clean_text,
    read_amount,
)

FORMAT = "camt053"
_NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:camt.053.001."
_VERSIONS = ("02", "08")
# Opening and closing of a statement, in the order in which they are preferred; ITBD is that of a page.
_OPENING, _CLOSING = ("OPBD", "PRCD", "ITBD"), ("CLBD", "ITBD")
# lxml has no types.
_Element: TypeAlias = Any


def read_camt(content: bytes, file: str) -> list[Statement]:
    """Return the statements of a file; raises `InvalidInputError` with every fault, its line and element.

    Faults: `too_large`, `invalid_xml` (a cut file too), `forbidden_xml` (a document type), `unknown_version`,
    `missing_element`, `invalid_amount`, `too_many_digits`, `invalid_date`, `wrong_currency`, `unknown_currency`,
    `invalid_value`, `sum_mismatch`, `balance_mismatch`.
    """
    root = _parse(content, file)
    name = etree.QName(root)
    version = (name.namespace or "").removeprefix(_NAMESPACE)
    if name.localname != "Document" or version not in _VERSIONS:
        known = " or ".join(f"{_NAMESPACE}{each}" for each in _VERSIONS)
        reason = f"expected a Document of {known}, got {name.text[:120]!r}"
        raise InvalidInputError([Fault("unknown_version", reason, at(file, f"line {root.sourceline}"))])
    reader = _Reader(file, str(name.namespace), [])
    statements = list(reader.statements(root))
    if not statements and not reader.faults:
        reader.fault(root, "missing_element", "there is no BkToCstmrStmt/Stmt in it")
    if not reader.faults:
        # An element that could not be read would be missing in the sum, which says nothing new.
        reader.faults += [fault for statement in statements for fault in check_statement(statement, file)]
    if reader.faults:
        raise InvalidInputError(reader.faults)
    return statements


def _parse(content: bytes, file: str) -> _Element:
    if len(content) > BYTES_MAX:
        raise InvalidInputError([Fault("too_large", f"{len(content)} bytes; at most {BYTES_MAX} are read", file)])
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, recover=False
    )
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        place = at(file, f"line {error.lineno}")
        raise InvalidInputError([Fault("invalid_xml", str(error.msg)[:200], place)]) from None
    except ValueError as error:
        # An encoding that is declared and not there.
        raise InvalidInputError([Fault("invalid_xml", str(error)[:200], file)]) from None
    if root.getroottree().docinfo.internalDTD is not None:
        # No bank sends one, and entities are what an attack would need.
        raise InvalidInputError([Fault("forbidden_xml", "a document type is not taken", file)])
    return root


class _Reader:
    """Reads one document and notes every fault."""

    def __init__(self, file: str, namespace: str, faults: list[Fault]) -> None:
        self._file, self._prefix, self.faults = file, f"{{{namespace}}}", faults

    def statements(self, root: _Element) -> Iterator[Statement]:
        """Yield the statements that could be read."""
        for message in self._all(root, "BkToCstmrStmt"):
            for found in self._all(message, "Stmt"):
                statement = self._statement(found)
                if statement is not None:
                    yield statement

    def fault(self, element: _Element, code: str, reason: str) -> None:
        """Note a fault at an element."""
        self.faults.append(Fault(code, reason, at(self._file, f"line {element.sourceline}: {_path(element)}")))

    def _statement(self, element: _Element) -> Statement | None:
        name, account = self._needed(element, "Id"), self._account(element)
        opening = self._balance(element, "opening", _OPENING)
        closing = self._balance(element, "closing", _CLOSING)
        if name is None or account is None or opening is None or closing is None:
            return None
        currency = opening[0]
        if closing[0] != currency or self._text(element, "Acct/Ccy") not in ("", currency):
            self.fault(
                element, "wrong_currency", f"the account, its opening and closing balance are not all {currency}"
            )
            return None
        entries = [entry for found in self._all(element, "Ntry") for entry in self._entries(found, currency)]
        self._check_summary(element, entries)
        sequence = self._text(element, "ElctrncSeqNb") or self._text(element, "LglSeqNb")
        page = self._text(element, "StmtPgntn/PgNb")
        return Statement(
            place=f"line {element.sourceline}",
            format=FORMAT,
            account=account,
            currency=currency,
            number=clean_text([name, sequence, page]),
            opened_on=opening[1],
            opening=opening[2],
            closed_on=closing[1],
            closing=closing[2],
            entries=tuple(entries),
        )

    def _account(self, element: _Element) -> str | None:
        account = self._text(element, "Acct/Id/IBAN") or self._text(element, "Acct/Id/Othr/Id")
        if not account:
            self.fault(element, "missing_element", "no Acct/Id/IBAN or Acct/Id/Othr/Id")
        return account or None

    def _balance(self, element: _Element, which: str, codes: tuple[str, ...]) -> tuple[str, date, Decimal] | None:
        """Return currency, day and signed amount of the balance whose code comes first in `codes`."""
        balances = self._all(element, "Bal")
        # A page has two interim balances: the first is where it begins, the last where it ends.
        ordered = balances if which == "opening" else balances[::-1]
        by_code = [(self._text(balance, "Tp/CdOrPrtry/Cd"), balance) for balance in ordered]
        balance = next((found for code in codes for has, found in by_code if has == code), None)
        if balance is None:
            self.fault(element, "missing_element", f"no {which} balance ({', '.join(codes)})")
            return None
        amount, day = self._amount(balance), self._day(balance, "Dt")
        if amount is None or day is None:
            return None
        return amount[0], day, amount[1] * self._sign(balance)

    def _entries(self, element: _Element, currency: str) -> list[StatementEntry]:
        status = self._text(element, "Sts/Cd") or self._text(element, "Sts")
        if status not in ("BOOK", "PDNG", "INFO", "FUTR"):
            self.fault(element, "invalid_value", f"the entry's status is {status[:20]!r}")
        if status != "BOOK":
            # Not booked: it is not in the balances either.
            return []
        amount, booked = self._amount(element), self._day(element, "BookgDt")
        valued = self._day(element, "ValDt") if self._find(element, "ValDt") is not None else booked
        sign = self._sign(element)
        if amount is None or booked is None or valued is None:
            return []
        if amount[0] != currency:
            self.fault(element, "wrong_currency", f"an entry in {amount[0]} on an account in {currency}")
            return []
        details = [each for group in self._all(element, "NtryDtls") for each in self._all(group, "TxDtls")]
        parts = [self._part(each, currency) for each in details]
        whole = amount[1] * sign
        amounts = [part for part in parts if part is not None]
        if len(details) > 1 and len(amounts) == len(parts) and sum(amounts, Decimal(0)) == abs(whole):
            return [
                self._entry(element, [each], booked, valued, part * sign)
                for each, part in zip(details, amounts, strict=True)
            ]
        return [self._entry(element, details, booked, valued, whole)]

    def _entry(
        self, element: _Element, details: list[_Element], booked: date, valued: date, amount: Decimal
    ) -> StatementEntry:
        side = "Dbtr" if amount > 0 else "Cdtr"

        def every(*paths: str) -> list[str]:
            return [text for each in details for path in paths for text in self._texts(each, path)]

        references = [*every("RmtInf/Strd/CdtrRefInf/Ref"), *every("Refs/EndToEndId")]
        own = self._texts(element, "AcctSvcrRef")
        free = every("RmtInf/Ustrd", "RmtInf/Strd/AddtlRmtInf", "RmtInf/Strd/RfrdDocInf/Nb")
        is_return = self._text(element, "RvslInd") in ("true", "1") or bool(every("RtrInf/Rsn/Cd", "RtrInf/Rsn/Prtry"))
        told = details[0] if len(details) == 1 else element
        return StatementEntry(
            place=f"line {told.sourceline}: {_path(told)}",
            booked_on=booked,
            valued_on=valued,
            amount=amount,
            # Of a part of a batch the transfer's own reference; the entry's is that of all of them.
            bank_reference=clean_reference(next(iter([*every("Refs/AcctSvcrRef", "Refs/TxId")][:1] or own), "")),
            remittance=clean_text(free or self._texts(element, "AddtlNtryInf")),
            references=tuple(dict.fromkeys(each for each in map(clean_reference, references) if each)),
            counterparty=clean_text(every(f"RltdPties/{side}/Nm", f"RltdPties/{side}/Pty/Nm")[:1]),
            counterparty_account=clean_text(
                every(f"RltdPties/{side}Acct/Id/IBAN", f"RltdPties/{side}Acct/Id/Othr/Id")[:1]
            ),
            is_reversal=is_return,
        )

    def _part(self, details: _Element, currency: str) -> Decimal | None:
        """Return what one transfer of a batch moved, None if the bank does not say it in the account's currency."""
        for path in ("Amt", "AmtDtls/TxAmt/Amt"):
            found = self._find(details, path)
            if found is not None and found.get("Ccy") == currency:
                amount = read_amount((found.text or "").strip(), currency)
                return None if isinstance(amount, Fault) else amount
        return None

    def _check_summary(self, element: _Element, entries: list[StatementEntry]) -> None:
        """Hold the entries to the statement's own count and sum, where it gives them."""
        counted = self._text(element, "TxsSummry/TtlNtries/NbOfNtries")
        booked = [
            each
            for each in self._all(element, "Ntry")
            if (self._text(each, "Sts/Cd") or self._text(each, "Sts")) == "BOOK"
        ]
        if counted and counted not in (str(len(booked)), str(len(self._all(element, "Ntry")))):
            self.fault(element, "sum_mismatch", f"{len(booked)} entries, the summary says {counted[:20]}")

    def _amount(self, element: _Element) -> tuple[str, Decimal] | None:
        found = self._find(element, "Amt")
        if found is None:
            self.fault(element, "missing_element", "no Amt")
            return None
        currency = found.get("Ccy", "")
        if currency not in MINOR_UNITS:
            self.fault(found, "unknown_currency", f"unknown currency {currency[:10]!r}")
            return None
        amount = read_amount((found.text or "").strip(), currency)
        if isinstance(amount, Fault):
            self.fault(found, amount.code, amount.reason)
            return None
        return currency, amount

    def _sign(self, element: _Element) -> int:
        mark = self._text(element, "CdtDbtInd")
        if mark not in ("CRDT", "DBIT"):
            self.fault(element, "invalid_value", f"expected CdtDbtInd CRDT or DBIT, got {mark[:20]!r}")
        return -1 if mark == "DBIT" else 1

    def _day(self, element: _Element, name: str) -> date | None:
        for part, read in (("Dt", _read_day), ("DtTm", _read_moment)):
            text = self._text(element, f"{name}/{part}")
            if text:
                try:
                    return read(text)
                except ValueError:
                    self.fault(element, "invalid_date", f"{name}: not a day: {text[:40]!r}")
                    return None
        self.fault(element, "missing_element", f"no {name}/Dt or {name}/DtTm")
        return None

    def _needed(self, element: _Element, path: str) -> str | None:
        text = self._text(element, path)
        if not text:
            self.fault(element, "missing_element", f"no {path}")
        return text or None

    def _text(self, element: _Element, path: str) -> str:
        found = self._find(element, path)
        return "" if found is None else (found.text or "").strip()

    def _texts(self, element: _Element, path: str) -> list[str]:
        found = element.iterfind("/".join(self._prefix + part for part in path.split("/")))
        return [text for each in found if (text := (each.text or "").strip())]

    def _find(self, element: _Element, path: str) -> _Element | None:
        return element.find("/".join(self._prefix + part for part in path.split("/")))

    def _all(self, element: _Element, name: str) -> list[_Element]:
        return list(element.iterchildren(self._prefix + name))


def _path(element: _Element) -> str:
    """Write an element's way from the root as people do: `BkToCstmrStmt/Stmt/Ntry[3]/Amt`."""
    steps: list[str] = []
    current: _Element | None = element
    while current is not None and current.getparent() is not None:
        parent = current.getparent()
        twins = list(parent.iterchildren(current.tag)) if parent is not None else []
        name = etree.QName(current).localname
        steps.append(f"{name}[{twins.index(current) + 1}]" if len(twins) > 1 else name)
        current = parent
    return "/".join(reversed(steps)) or "Document"


_read_day: Callable[[str], date] = date.fromisoformat


def _read_moment(text: str) -> date:
    """Return the local day of a moment: the bank's own, whatever its zone."""
    return datetime.fromisoformat(text).date()
