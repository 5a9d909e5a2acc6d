"""Writes statements as banks do, from what they mean: shares no code with the readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from xml.sax.saxutils import escape

D = Decimal
IBAN = "DE89370400440532013000"
OPENING = D("1000.00")


@dataclass(frozen=True)
class Told:
    """One movement as the bank knows it."""

    day: date
    amount: Decimal
    text: str = ""
    payer: str = ""
    payer_account: str = ""
    bank_reference: str = ""
    end_to_end: str = ""
    is_return: bool = False


@dataclass(frozen=True)
class TheStatement:
    """One statement as the bank knows it; amounts are signed, money that came in is positive."""

    entries: Sequence[Told]
    opening: Decimal = OPENING
    opened_on: date = date(2026, 10, 1)
    closed_on: date = date(2026, 10, 31)
    account: str = IBAN
    currency: str = "EUR"
    number: str = "00210/001"
    reference: str = "STMT20261031"

    @property
    def closing(self) -> Decimal:
        return self.opening + sum((each.amount for each in self.entries), D(0))


def comma(amount: Decimal, places: int = 2) -> str:
    return f"{abs(amount):.{places}f}".replace(".", ",")


def write_mt940(*statements: TheStatement, places: int = 2, ending: str = "\r\n", words: bool = False) -> bytes:
    lines: list[str] = []
    for one in statements:
        lines += [f":20:{one.reference}", f":25:{one.account}", f":28C:{one.number}"]
        lines.append(f":60F:{_mark(one.opening)}{one.opened_on:%y%m%d}{one.currency}{comma(one.opening, places)}")
        for entry in one.entries:
            mark = ("RC" if entry.amount < 0 else "RD") if entry.is_return else _mark(entry.amount)
            customer = entry.end_to_end[:16] if entry.end_to_end and words else "NONREF"
            bank = f"//{entry.bank_reference}" if entry.bank_reference else ""
            lines.append(
                f":61:{entry.day:%y%m%d}{entry.day:%m%d}{mark}{comma(entry.amount, places)}NTRF{customer}{bank}"
            )
            text = _with_words(entry) if words else _with_subfields(entry)
            cut = [text[at : at + 65] for at in range(0, len(text), 65)]
            if cut:
                lines += [f":86:{cut[0]}", *cut[1:]]
        lines.append(f":62F:{_mark(one.closing)}{one.closed_on:%y%m%d}{one.currency}{comma(one.closing, places)}")
        lines.append("-")
    return ending.join([*lines, ""]).encode()


def _with_subfields(entry: Told) -> str:
    usage = (f"EREF+{entry.end_to_end} " if entry.end_to_end else "") + f"SVWZ+{entry.text}"
    parts = [usage[at : at + 27] for at in range(0, len(usage), 27)][:10]
    subfields = "".join(f"?{20 + index}{part}" for index, part in enumerate(parts))
    payer = f"?32{entry.payer[:27]}" + (f"?33{entry.payer[27:54]}" if entry.payer[27:] else "")
    account = f"?31{entry.payer_account}" if entry.payer_account else ""
    return f"166?00GUTSCHRIFT?109248{subfields}{account}{payer if entry.payer else ''}"


def _with_words(entry: Told) -> str:
    found = f"/TRTP/SEPA OVERBOEKING/IBAN/{entry.payer_account}/NAME/{entry.payer}/REMI/{entry.text}"
    return found + (f"/EREF/{entry.end_to_end}" if entry.end_to_end else "")


def _mark(amount: Decimal) -> str:
    return "D" if amount < 0 else "C"


def write_camt(*statements: TheStatement, version: str = "02", places: int = 2) -> bytes:
    blocks = "".join(_stmt(one, version, places) for one in statements)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}">\n<BkToCstmrStmt>\n'
        f"<GrpHdr><MsgId>M1</MsgId><CreDtTm>2026-10-31T23:00:00+01:00</CreDtTm></GrpHdr>\n{blocks}"
        f"</BkToCstmrStmt>\n</Document>\n"
    ).encode()


def _stmt(one: TheStatement, version: str, places: int) -> str:
    entries = "".join(_ntry(entry, one.currency, version, places) for entry in one.entries)
    return (
        f"<Stmt><Id>{one.reference}</Id><ElctrncSeqNb>{one.number.split('/')[0]}</ElctrncSeqNb>"
        f"<Acct><Id><IBAN>{one.account}</IBAN></Id><Ccy>{one.currency}</Ccy></Acct>\n"
        + _bal("OPBD", one.opening, one.opened_on, one.currency, places)
        + _bal("CLBD", one.closing, one.closed_on, one.currency, places)
        + f"<TxsSummry><TtlNtries><NbOfNtries>{len(one.entries)}</NbOfNtries></TtlNtries></TxsSummry>\n"
        + entries
        + "</Stmt>\n"
    )


def _bal(code: str, amount: Decimal, day: date, currency: str, places: int) -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
        f'<Amt Ccy="{currency}">{abs(amount):.{places}f}</Amt><CdtDbtInd>{_indicator(amount)}</CdtDbtInd>'
        f"<Dt><Dt>{day}</Dt></Dt></Bal>\n"
    )


def _ntry(entry: Told, currency: str, version: str, places: int) -> str:
    status = "BOOK" if version == "02" else "<Cd>BOOK</Cd>"
    side = "Dbtr" if entry.amount > 0 else "Cdtr"
    name = f"<Nm>{escape(entry.payer)}</Nm>" if version == "02" else f"<Pty><Nm>{escape(entry.payer)}</Nm></Pty>"
    account = f"<{side}Acct><Id><IBAN>{entry.payer_account}</IBAN></Id></{side}Acct>" if entry.payer_account else ""
    parties = f"<RltdPties>{f'<{side}>{name}</{side}>' if entry.payer else ''}{account}</RltdPties>"
    returned = "<RvslInd>true</RvslInd>" if entry.is_return else ""
    reference = f"<AcctSvcrRef>{escape(entry.bank_reference)}</AcctSvcrRef>" if entry.bank_reference else ""
    return (
        f'<Ntry><Amt Ccy="{currency}">{abs(entry.amount):.{places}f}</Amt>'
        f"<CdtDbtInd>{_indicator(entry.amount)}</CdtDbtInd>{returned}<Sts>{status}</Sts>"
        f"<BookgDt><Dt>{entry.day}</Dt></BookgDt><ValDt><Dt>{entry.day}</Dt></ValDt>{reference}"
        f"<NtryDtls><TxDtls><Refs><EndToEndId>{escape(entry.end_to_end or 'NOTPROVIDED')}</EndToEndId></Refs>"
        f"{parties}<RmtInf><Ustrd>{escape(entry.text)}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>\n"
    )


def _indicator(amount: Decimal) -> str:
    return "DBIT" if amount < 0 else "CRDT"


def write_csv(one: TheStatement, *, newest_first: bool = False, places: int = 2) -> bytes:
    """As a German bank exports it: semicolons, decimal commas, thousands with points, Windows' letters."""

    def amount(value: Decimal) -> str:
        whole, _, fraction = f"{abs(value):.{places}f}".partition(".")
        grouped = f"{int(whole):,}".replace(",", ".")
        return ("-" if value < 0 else "") + grouped + ("," + fraction if fraction else "")

    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    reached, rows = one.opening, []
    for entry in one.entries:
        reached += entry.amount
        cells = [f"{entry.day:%d.%m.%Y}", f"{entry.day:%d.%m.%Y}", entry.payer, entry.payer_account, entry.text]
        rows.append(";".join(cell(each) for each in [*cells, amount(entry.amount), amount(reached), one.currency]))
    if newest_first:
        rows.reverse()
    heading = "Buchung;Wertstellung;Auftraggeber;IBAN;Verwendungszweck;Betrag;Saldo;Währung"
    return "\r\n".join(["Umsatzanzeige", f"IBAN;{one.account}", "", heading, *rows, ""]).encode("cp1252")
