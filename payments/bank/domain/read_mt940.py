"""Reads MT940 strictly: what is not exactly a statement is refused with its line.

Field forms: SWIFT's Category 9 reference guide, "MT 940 Customer Statement Message". Field 86, which that leaves open,
is read in the two shapes banks use: with subfields (`166?00…?20…?32…`, the German banks' DK agreement) and with code
words (`/EREF/…/NAME/…/REMI/…`). Why this is no library: docs/decisions/0034.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

from core.errors import Fault, InvalidInputError
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

FORMAT = "mt940"
_TAG = re.compile(r":(\d{2}[A-Z]?):(.*)")
_END = re.compile(r"-\}?.*")
_KNOWN = frozenset(
    [
        "13",
        "13D",
        "20",
        "21",
        "25",
        "25P",
        "28",
        "28C",
        "34F",
        "60F",
        "60M",
        "61",
        "62F",
        "62M",
        "64",
        "65",
        "86",
        "90C",
        "90D",
    ]
)
_BALANCE = re.compile(r"(?P<mark>[CD])(?P<day>\d{6})(?P<currency>[A-Z]{3})(?P<amount>\d+,\d*)", re.ASCII)
_LINE = re.compile(
    r"(?P<valued>\d{6})(?P<booked>\d{4})?(?P<mark>R?[CD])(?P<funds>[A-Z])?(?P<amount>\d+,\d*)"
    r"(?P<type>[NSF][A-Z0-9]{3})(?P<customer>(?:(?!//).){0,35})(?://(?P<bank>.{0,35}))?",
    re.ASCII,
)
# Returned items, by SWIFT's code list of field 61, subfield 6.
_RETURNS = frozenset({"RTI"})
_SUBFIELDS = re.compile(r"(?P<code>\d{3})(?P<mark>[^\w\s])(?=\d{2})")
_SEPA_CODE = re.compile(r"(EREF|KREF|MREF|CRED|DEBT|SVWZ|ABWA|ABWE|IBAN|BIC|RREF)\+")
_WORD = re.compile(
    r"/(TRTP|IBAN|BIC|NAME|REMI|EREF|MARF|CSID|RTRN|CNTP|ORDP|BENM|ISDT|ULTD|ULTC|PURP|PREF|SVCL|TRCD|ACCW|ADDR)/"
)


@dataclass
class _Field:
    line: int
    tag: str
    lines: list[str]


@dataclass
class _Text:
    """What a field 86 says, as far as it has a structure."""

    remittance: str = ""
    references: tuple[str, ...] = ()
    name: str = ""
    account: str = ""
    is_return: bool = False


@dataclass
class _Message:
    fields: list[_Field] = field(default_factory=list)


def read_mt940(content: bytes, file: str) -> list[Statement]:
    """Return the statements of a file; raises `InvalidInputError` with every fault and its line.

    Faults: `too_large`, `invalid_encoding`, `malformed_line`, `unknown_field`, `missing_field`, `cut_file`,
    `invalid_amount`, `too_many_digits`, `invalid_date`, `wrong_currency`, `unknown_currency`, `balance_mismatch`.
    """
    faults: list[Fault] = []
    messages = _split(_decode(content, file), file, faults)
    statements = [each for each in (_statement(message, file, faults) for message in messages) if each is not None]
    if not faults:
        # A line that could not be read would be missing in the sum, which says nothing new.
        faults = [fault for statement in statements for fault in check_statement(statement, file)]
    if not messages and not faults:
        faults.append(Fault("cut_file", "there is no statement in it", file))
    if faults:
        raise InvalidInputError(faults)
    return statements


def _decode(content: bytes, file: str) -> str:
    if len(content) > BYTES_MAX:
        raise InvalidInputError([Fault("too_large", f"{len(content)} bytes; at most {BYTES_MAX} are read", file)])
    # SWIFT knows no letters beyond ASCII; banks that send some write them in one of these.
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InvalidInputError([Fault("invalid_encoding", "it is neither UTF-8 nor Windows-1252", file)])


def _split(text: str, file: str, faults: list[Fault]) -> list[_Message]:
    messages: list[_Message] = []
    is_open = False
    for number, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        line = raw.rstrip(" ")
        if not line or line == "\x03":
            continue
        found = _TAG.fullmatch(line)
        if found and found[1] not in _KNOWN:
            faults.append(Fault("unknown_field", f"no field {found[1]} in a statement", at(file, f"line {number}")))
        elif found:
            if found[1] == "20":
                messages.append(_Message())
                is_open = True
            if not is_open:
                reason = f"field {found[1]} outside a statement, which begins with field 20"
                faults.append(Fault("malformed_line", reason, at(file, f"line {number}")))
                continue
            # A blank at a line's end of field 86 stands between two words.
            messages[-1].fields.append(_Field(number, found[1], [raw[4:] if found[1] == "86" else found[2]]))
        elif _END.fullmatch(line) and is_open and _is_end(line):
            is_open = False
        elif line.startswith("{") and not is_open:
            continue
        elif is_open and not line.startswith(":") and messages[-1].fields[-1].tag in ("61", "86", "25"):
            messages[-1].fields[-1].lines.append(raw if messages[-1].fields[-1].tag == "86" else line)
        else:
            faults.append(Fault("malformed_line", f"not a field: {line[:40]!r}", at(file, f"line {number}")))
    return messages


def _is_end(line: str) -> bool:
    return line in ("-", "-}") or line.startswith("-}{")


def _statement(message: _Message, file: str, faults: list[Fault]) -> Statement | None:
    start = message.fields[0].line
    heads = {each.tag: each for each in message.fields if each.tag not in ("61", "86", "64", "65")}
    account, number = heads.get("25") or heads.get("25P"), heads.get("28C") or heads.get("28")
    opening, closing = heads.get("60F") or heads.get("60M"), heads.get("62F") or heads.get("62M")
    for name, found in (("25", account), ("28C", number), ("60F", opening)):
        if found is None:
            faults.append(Fault("missing_field", f"the statement has no field {name}", at(file, f"line {start}")))
    if closing is None:
        reason = "the statement ends without a closing balance (field 62F)"
        faults.append(Fault("cut_file", reason, at(file, f"line {message.fields[-1].line}")))
    _check_order(message, file, faults)
    if account is None or number is None or opening is None or closing is None:
        return None
    first, last = _balance(opening, file, faults), _balance(closing, file, faults)
    if first is None or last is None:
        return None
    if first[0] != last[0]:
        reason = f"it opens in {first[0]} and closes in {last[0]}"
        faults.append(Fault("wrong_currency", reason, at(file, f"line {closing.line}")))
        return None
    return Statement(
        place=f"line {start}",
        format=FORMAT,
        account="".join(account.lines).strip(),
        currency=first[0],
        number=f"{clean_text(heads['20'].lines)} {clean_text(number.lines)}",
        opened_on=first[1],
        opening=first[2],
        closed_on=last[1],
        closing=last[2],
        entries=tuple(_entries(message, first[0], file, faults)),
    )


def _check_order(message: _Message, file: str, faults: list[Fault]) -> None:
    """The opening balance comes before the entries, the closing balance after them, each once."""
    counts: dict[str, int] = {}
    for each in message.fields:
        part = each.tag[:2]
        counts[part] = counts.get(part, 0) + 1
        is_late = part in ("61", "60") and counts.get("62")
        is_early = part in ("61", "62") and not counts.get("60")
        is_twice = part in ("20", "25", "28", "60", "62") and counts[part] > 1
        if is_late or is_early or is_twice:
            what = "stands twice" if is_twice else "stands where it cannot"
            faults.append(Fault("malformed_line", f"field {each.tag} {what}", at(file, f"line {each.line}")))


def _balance(found: _Field, file: str, faults: list[Fault]) -> tuple[str, date, Decimal] | None:
    place = at(file, f"line {found.line}")
    parsed = _BALANCE.fullmatch(found.lines[0])
    if parsed is None or len(found.lines) > 1:
        reason = f"expected a balance such as C261031EUR1234,56, got {found.lines[0][:40]!r}"
        faults.append(Fault("malformed_line", reason, place))
        return None
    day = _day(parsed["day"])
    amount = read_amount(parsed["amount"].replace(",", "."), parsed["currency"])
    if isinstance(amount, Fault):
        faults.append(Fault(amount.code, amount.reason, place))
        return None
    if day is None:
        faults.append(Fault("invalid_date", f"no such day: {parsed['day']}", place))
        return None
    return parsed["currency"], day, -amount if parsed["mark"] == "D" else amount


def _entries(message: _Message, currency: str, file: str, faults: list[Fault]) -> list[StatementEntry]:
    entries: list[StatementEntry] = []
    fields = message.fields
    for index, each in enumerate(fields):
        if each.tag != "61":
            continue
        following = fields[index + 1] if index + 1 < len(fields) else None
        text = following.lines if following is not None and following.tag == "86" else []
        entry = _entry(each, text, currency, at(file, f"line {each.line}"), faults)
        if entry is not None:
            entries.append(entry)
    return entries


def _entry(found: _Field, text: list[str], currency: str, place: str, faults: list[Fault]) -> StatementEntry | None:
    parsed = _LINE.fullmatch(found.lines[0])
    if parsed is None or len(found.lines) > 2:
        reason = f"expected an entry such as 2610011001C100,00NTRFREF//BANKREF, got {found.lines[0][:60]!r}"
        faults.append(Fault("malformed_line", reason, place))
        return None
    if parsed["funds"] and parsed["funds"] != currency[2]:
        reason = f"funds code {parsed['funds']} in an account in {currency}"
        faults.append(Fault("wrong_currency", reason, place))
    amount = read_amount(parsed["amount"].replace(",", "."), currency)
    valued = _day(parsed["valued"])
    booked = valued if valued is None or not parsed["booked"] else _near(valued, parsed["booked"])
    if isinstance(amount, Fault):
        faults.append(Fault(amount.code, amount.reason, place))
        return None
    if valued is None or booked is None:
        faults.append(Fault("invalid_date", f"no such day: {parsed['valued']}{parsed['booked'] or ''}", place))
        return None
    said = _read_text(text)
    references = [clean_reference(parsed["customer"]), *said.references]
    mark = parsed["mark"]
    return StatementEntry(
        place=f"line {found.line}",
        booked_on=booked,
        valued_on=valued,
        # A reversed credit takes money away, a reversed debit brings it back.
        amount=amount if mark in ("C", "RD") else -amount,
        bank_reference=clean_reference(parsed["bank"] or ""),
        remittance=said.remittance or clean_text(found.lines[1:]),
        references=tuple(dict.fromkeys(each for each in references if each)),
        counterparty=said.name,
        counterparty_account=said.account,
        is_reversal=mark.startswith("R") or parsed["type"][1:] in _RETURNS or said.is_return,
    )


def _read_text(lines: list[str]) -> _Text:
    """Read a field 86. Lines are cut at 65 characters wherever a word happens to be, so they are joined as they are."""
    whole = "".join(lines)
    if structured := _SUBFIELDS.match(whole):
        return _read_subfields(whole[3:], structured["mark"])
    if _WORD.search(whole):
        return _read_words(whole)
    return _Text(remittance=clean_text(lines))


def _read_subfields(text: str, mark: str) -> _Text:
    parts: dict[str, str] = {}
    for part in text.split(mark):
        if part[:2].isdigit():
            parts[part[:2]] = parts.get(part[:2], "") + part[2:]
    usage = "".join(parts[code] for code in sorted(parts) if "20" <= code <= "29" or "60" <= code <= "63")
    # Cut into its code words: the text before the first, then word, text, word, text.
    pieces = _SEPA_CODE.split(usage)
    codes = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    remittance = codes.get("SVWZ", "") if codes else usage
    references = [clean_reference(codes[code]) for code in ("EREF", "KREF") if code in codes]
    return _Text(
        remittance=clean_text([remittance or pieces[0]]),
        references=tuple(each for each in references if each),
        name=clean_text([parts.get("32", "") + parts.get("33", "")]),
        account=clean_text([parts.get("31", "")]),
        is_return="RREF" in codes,
    )


def _read_words(text: str) -> _Text:
    pieces = _WORD.split(text)
    words = {word: value.strip("/ ") for word, value in zip(pieces[1::2], pieces[2::2], strict=True)}
    # Of the counterparty in one word: account, BIC, name.
    account, _, name = (*words.get("CNTP", "").split("/"), "", "", "")[:3]
    remittance = re.sub(r"^(USTD|STRD/(CUR|ISO))/+", "", words.get("REMI", ""))
    reference = clean_reference(words.get("EREF", ""))
    return _Text(
        remittance=clean_text([remittance or pieces[0]]),
        references=(reference,) if reference else (),
        name=clean_text([words.get("NAME") or name]),
        account=clean_text([words.get("IBAN") or account]),
        is_return="RTRN" in words,
    )


def _day(text: str) -> date | None:
    """Return the day of `261031`; the century is ours."""
    try:
        return date(2000 + int(text[:2]), int(text[2:4]), int(text[4:]))
    except ValueError:
        return None


def _near(valued: date, text: str) -> date | None:
    """Return the day of `1031` in the year that brings it closest to the value date."""
    near = []
    for year in (valued.year - 1, valued.year, valued.year + 1):
        try:
            near.append(date(year, int(text[:2]), int(text[2:])))
        except ValueError:
            continue
    found = min(near, key=lambda day: abs(day - valued), default=None)
    return found if found is not None and abs(found - valued) <= timedelta(days=184) else None
