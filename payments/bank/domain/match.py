"""Proposes which invoices an entry pays, with a score and the reasons for it; a person decides.

The score is a sum of points that each reason gives, at most 100; a doubt takes points away. What the payer wrote gives
60, the amount 30, the payer's name 20, an account that was paid from before 20. 90 and more is named and to the cent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from rapidfuzz import fuzz

from core.errors import must_hold
from payments.bank.domain.reference import compact, names_invoice, nearly_names_invoice

_ZERO = Decimal(0)
# Legal forms say nothing of who it is.
_FORMS = re.compile(
    r"\b(gmbh|ag|kg|ohg|ug|se|ev|inc|incorporated|corp|corporation|company|co|llc|llp|lp|ltd|limited|plc|sa|sas|sarl|srl|sl"
    r"|spa|bv|nv|oy|ab|as|aps|sa de cv|de cv|cv)\b"
)
# SWIFT has no umlauts; what joins two names is written in as many ways as there are languages.
_AS_BANKS_WRITE = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae"})
_JOINING = frozenset({"and", "und", "et", "y", "e", "u"})
_NAME_PERCENT_MIN = 70
_NAME_PERCENT_SURE = 90
# Sums of several invoices are tried for so many invoices of one payer, oldest first; beyond that a person adds up.
_INVOICES_MAX = 16
_PROPOSALS_MAX = 3


class Fit(StrEnum):
    """How the money and what is open go together."""

    EXACT = "exact"
    """To the cent."""
    SHORT = "short"
    """Less, within the tolerance for bank fees."""
    PARTIAL = "partial"
    """Less than is open."""
    OVER = "over"
    """More than is open: a rest stays."""
    PAID_BEFORE = "paid_before"
    """The invoice that is named has nothing open."""
    RETURN = "return"
    """It takes back an earlier payment."""


@dataclass(frozen=True, slots=True)
class OpenInvoice:
    """An invoice as the bank desk sees it. `open_amount` is what is not paid yet, nor by payments on their way."""

    invoice_id: str
    number: str
    tenant_id: str
    tenant_name: str
    currency: str
    open_amount: Decimal
    due_on: date


@dataclass(frozen=True, slots=True)
class Incoming:
    """Money of an entry that is not allocated yet: what came with it, and how much of it is left."""

    entry_id: str
    currency: str
    left: Decimal
    remittance: str
    references: tuple[str, ...]
    counterparty: str
    counterparty_account: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a proposal has its score: a stable code, a sentence, the points."""

    code: str
    text: str
    points: int


@dataclass(frozen=True, slots=True)
class Part:
    """How much goes to an invoice. `fee` is what bank fees took on the way; both together settle the invoice."""

    invoice_id: str
    number: str
    amount: Decimal
    fee: Decimal = _ZERO


@dataclass(frozen=True, slots=True)
class Proposal:
    """What may be confirmed: parts for invoices, `rest` for the payer's account, of one tenant or several."""

    entry_id: str
    fit: Fit
    parts: tuple[Part, ...]
    rest: Decimal
    tenant_ids: tuple[str, ...]
    reasons: tuple[Reason, ...]
    returns: str | None = None

    @property
    def score(self) -> int:
        """The points of all reasons, from 0 to 100."""
        return max(0, min(100, sum(reason.points for reason in self.reasons)))

    @property
    def is_exact(self) -> bool:
        """Whether the payer named every invoice and paid exactly what is open on them, nothing else in doubt."""
        codes = {reason.code for reason in self.reasons}
        named = codes & {"reference", "number"}
        return self.fit is Fit.EXACT and bool(named) and all(reason.points >= 0 for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Rules:
    """How matching goes. `fee_tolerance` is how much bank fees may take of one transfer, in the entry's currency."""

    fee_tolerance: Decimal = _ZERO


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an entry, worked out once."""

    incoming: Incoming
    text: str
    compacted: str
    payers: frozenset[str]
    likeness: dict[str, int] = field(default_factory=dict)

    def name_percent(self, tenant_name: str) -> int:
        if tenant_name not in self.likeness:
            self.likeness[tenant_name] = name_likeness(self.incoming.counterparty, tenant_name)
        return self.likeness[tenant_name]


def propose(
    incoming: Incoming,
    invoices: Sequence[OpenInvoice],
    *,
    payers: Mapping[str, frozenset[str]] | None = None,
    rules: Rules | None = None,
) -> list[Proposal]:
    """Return up to three proposals, best first; none if nothing speaks for any invoice.

    `invoices` are all that may be meant, also those that are paid. `payers` are the tenants that paid from an account
    before. No proposal gives out more than is left, nor an invoice more than is open.
    """
    must_hold(incoming.left > 0, f"{incoming.entry_id} has nothing left")
    text = " ".join((incoming.remittance, *incoming.references))
    # The oldest first, so that the order in which they were read changes nothing.
    same = sorted(
        (each for each in invoices if each.currency == incoming.currency), key=lambda each: (each.due_on, each.number)
    )
    account = compact(incoming.counterparty_account)
    seen = (payers or {}).get(account, frozenset()) if account else frozenset()
    known = _Known(incoming, text, compact(text), seen)
    rule = rules or Rules()
    named = [(each, how) for each in same if (how := names_invoice(each.number, text, known.compacted))]
    if named:
        return _named(known, named, same, rule)
    found = _by_amount(known, same, rule)
    return sorted(found, key=lambda each: (-each.score, [part.number for part in each.parts]))[:_PROPOSALS_MAX]


@dataclass(frozen=True, slots=True)
class Movement:
    """An entry as one that may take back, or be taken back: `left` is what of it is not, or can still be."""

    entry_id: str
    booked_on: date
    left: Decimal
    bank_reference: str
    texts: tuple[str, ...]
    counterparty: str
    counterparty_account: str
    is_reversal: bool


def propose_returns(outgoing: Movement, received: Sequence[Movement]) -> list[Proposal]:
    """Return which entries received before an outgoing one may take back, best first.

    The amount has to be theirs, and something else has to speak for it: money that merely goes out is no return.
    """
    found = []
    for original in received:
        if original.left != outgoing.left or original.booked_on > outgoing.booked_on:
            continue
        reasons = [Reason("amount_exact", f"{original.left:,f} came in on {original.booked_on}", 30)]
        if outgoing.is_reversal:
            reasons.append(Reason("reversal", "the bank says that it takes back an earlier entry", 30))
        if _shares_reference(outgoing, original):
            reasons.append(Reason("reference", "it names the same reference", 30))
        account = compact(outgoing.counterparty_account)
        if account and account == compact(original.counterparty_account):
            reasons.append(Reason("known_account", "it goes to the account that the money came from", 20))
        elif name_likeness(outgoing.counterparty, original.counterparty) >= _NAME_PERCENT_MIN:
            reasons.append(Reason("name", f"it goes to {outgoing.counterparty!r}", 10))
        if len(reasons) > 1:
            found.append(Proposal(outgoing.entry_id, Fit.RETURN, (), Decimal(0), (), tuple(reasons), original.entry_id))
    return sorted(found, key=lambda each: -each.score)[:_PROPOSALS_MAX]


def _shares_reference(outgoing: Movement, original: Movement) -> bool:
    said = compact(" ".join(outgoing.texts))
    known = [compact(text) for text in (*original.texts, original.bank_reference)]
    # A few letters are in every text.
    return any(len(text) >= 6 and text in said for text in known)


def name_likeness(payer: str, tenant: str) -> int:
    """Return how alike two names are, 0 to 100: case, accents, order and legal forms do not matter."""
    one, other = _plain_name(payer), _plain_name(tenant)
    if not one or not other:
        return 0
    alike = int(fuzz.token_sort_ratio(one, other))
    if min(len(one.split()), len(other.split())) > 1:
        # Banks add a town: all words of one in the other is nearly as good.
        alike = max(alike, int(fuzz.token_set_ratio(one, other) * _NAME_PERCENT_SURE / 100))
    return alike


def _named(
    known: _Known, named: Sequence[tuple[OpenInvoice, str]], invoices: Sequence[OpenInvoice], rules: Rules
) -> list[Proposal]:
    """The payer wrote which invoices: the money goes to them, the oldest first."""
    reasons = [
        Reason(
            how,
            f"{'the reference' if how == 'reference' else 'the number'} of {invoice.number} is in the text",
            60 if index == 0 else 0,
        )
        for index, (invoice, how) in enumerate(named)
    ]
    meant = [invoice for invoice, _ in named]
    tenants = tuple(dict.fromkeys(invoice.tenant_id for invoice in meant))
    if len(tenants) > 1:
        reasons.append(Reason("several_tenants", f"they are invoices of {len(tenants)} tenants", -10))
    opened = [each for each in meant if each.open_amount]
    if not opened:
        numbers = ", ".join(invoice.number for invoice in meant)
        reasons.append(Reason("paid_before", f"nothing is open of {numbers}: paid twice?", -20))
        reasons += _payer_reasons(known, meant[0])
        return [Proposal(known.incoming.entry_id, Fit.PAID_BEFORE, (), known.incoming.left, tenants, tuple(reasons))]
    proposals = [_spread(known, opened, reasons, rules)]
    more = known.incoming.left - sum((each.open_amount for each in opened), _ZERO)
    if more > 0 and len(tenants) == 1:
        # "000041 to 000043": the first is named, the others are meant.
        names = {each.invoice_id for each in meant}
        own = [each for each in invoices if each.tenant_id == tenants[0] and each.open_amount > 0]
        others = [each for each in own if each.invoice_id not in names]
        for chosen in _sums_to(others[:_INVOICES_MAX], more)[:1]:
            text = f"with {', '.join(each.number for each in chosen)}, which nobody named, it is to the cent"
            proposals.append(_spread(known, [*opened, *chosen], [*reasons, Reason("unnamed", text, -10)], rules))
    return sorted(proposals, key=lambda each: -each.score)


def _by_amount(known: _Known, invoices: Sequence[OpenInvoice], rules: Rules) -> list[Proposal]:
    """The payer named nothing that is known: amounts, names and accounts seen before."""
    left = known.incoming.left
    open_ones = [each for each in invoices if each.open_amount > 0]
    exact = [each for each in open_ones if each.open_amount == left]
    near = {each.invoice_id for each in open_ones if nearly_names_invoice(each.number, known.compacted)}
    found: dict[tuple[str, ...], Proposal] = {}
    served: set[str] = set()

    def add(chosen: Sequence[OpenInvoice], reasons: list[Reason]) -> None:
        key = tuple(each.invoice_id for each in chosen)
        if key not in found:
            found[key] = _spread(known, chosen, reasons, rules)
            served.update(each.tenant_id for each in chosen)

    for invoice in exact:
        doubt = [] if len(exact) == 1 else [Reason("ambiguous", f"{len(exact)} invoices have this amount", -10)]
        if invoice.invoice_id in near:
            doubt.append(_near_reason(invoice))
        elif not _is_payer(known, invoice) and len(exact) > 1:
            # Amount alone, and not even that is one invoice's own.
            continue
        add([invoice], doubt)
    by_tenant: dict[str, list[OpenInvoice]] = {}
    for invoice in open_ones:
        by_tenant.setdefault(invoice.tenant_id, []).append(invoice)
    for own in by_tenant.values():
        if not _is_payer(known, own[0]):
            continue
        for chosen in _sums_to(own[:_INVOICES_MAX], left):
            if len(chosen) > 1:
                add(chosen, [])
        short = [each for each in own if 0 < each.open_amount - left <= rules.fee_tolerance]
        for invoice in short:
            add([invoice], [])
        if own[0].tenant_id not in served:
            add(_oldest(own, left), [Reason("oldest_first", "no amount fits: the oldest are paid first", -10)])
    for invoice in open_ones:
        if invoice.invoice_id in near and (invoice.invoice_id,) not in found:
            add([invoice], [_near_reason(invoice)])
    return list(found.values())


def _spread(known: _Known, chosen: Sequence[OpenInvoice], reasons: list[Reason], rules: Rules) -> Proposal:
    """Give the money to the chosen invoices in their order, and say how it fits."""
    left, parts = known.incoming.left, []
    owed = sum((each.open_amount for each in chosen), _ZERO)
    short = owed - left
    fee = short if 0 < short <= rules.fee_tolerance and short < chosen[-1].open_amount else _ZERO
    for invoice in chosen:
        amount = min(left, invoice.open_amount)
        if amount:
            taken = fee if invoice is chosen[-1] else _ZERO
            parts.append(Part(invoice.invoice_id, invoice.number, amount, taken))
            left -= amount
    fit, reason = _fit(known.incoming, owed, fee, len(chosen))
    tenants = tuple(dict.fromkeys(each.tenant_id for each in chosen))
    every = (*reasons, reason, *_payer_reasons(known, chosen[0]))
    proposal = Proposal(known.incoming.entry_id, fit, tuple(parts), left, tenants, every)
    opened = {each.invoice_id: each.open_amount for each in chosen}
    must_hold(left + sum((part.amount for part in parts), _ZERO) == known.incoming.left, "a proposal loses money")
    must_hold(
        all(part.amount + part.fee <= opened[part.invoice_id] for part in parts), "a proposal exceeds what is open"
    )
    return proposal


def _fit(incoming: Incoming, owed: Decimal, fee: Decimal, count: int) -> tuple[Fit, Reason]:
    of = "the invoice" if count == 1 else f"the sum of {count} invoices"
    paid, currency = incoming.left, incoming.currency
    if paid == owed:
        return Fit.EXACT, Reason("amount_exact" if count == 1 else "sum_exact", f"{paid:,f} {currency} is {of}", 30)
    if fee:
        return Fit.SHORT, Reason("short", f"{fee:,f} {currency} short of {of}: within the tolerance for bank fees", 20)
    if paid < owed:
        return Fit.PARTIAL, Reason("partial", f"{paid:,f} of {owed:,f} {currency}: {owed - paid:,f} stays open", 10)
    return Fit.OVER, Reason("over", f"{paid - owed:,f} {currency} more than {of}", 15)


def _payer_reasons(known: _Known, invoice: OpenInvoice) -> list[Reason]:
    reasons = []
    percent = known.name_percent(invoice.tenant_name)
    if percent >= _NAME_PERCENT_MIN:
        points = 20 if percent >= _NAME_PERCENT_SURE else 10
        payer = known.incoming.counterparty
        reasons.append(Reason("name", f"{payer!r} is {percent} % like {invoice.tenant_name!r}", points))
    if invoice.tenant_id in known.payers:
        account = known.incoming.counterparty_account
        reasons.append(Reason("known_account", f"{invoice.tenant_id} has paid from {account} before", 20))
    return reasons


def _near_reason(invoice: OpenInvoice) -> Reason:
    return Reason("reference_near", f"the text looks like {invoice.number}, mistyped", 30)


def _is_payer(known: _Known, invoice: OpenInvoice) -> bool:
    return invoice.tenant_id in known.payers or known.name_percent(invoice.tenant_name) >= _NAME_PERCENT_MIN


def _oldest(own: Sequence[OpenInvoice], left: Decimal) -> list[OpenInvoice]:
    chosen: list[OpenInvoice] = []
    for invoice in own:
        if left <= 0:
            break
        chosen.append(invoice)
        left -= invoice.open_amount
    return chosen


def _sums_to(own: Sequence[OpenInvoice], total: Decimal) -> list[list[OpenInvoice]]:
    """Return up to two sets of invoices that add up to the total, older ones preferred."""
    found: list[list[OpenInvoice]] = []
    rest_after = [sum((each.open_amount for each in own[index:]), _ZERO) for index in range(len(own) + 1)]

    def search(index: int, missing: Decimal, chosen: list[OpenInvoice]) -> None:
        if missing == 0:
            found.append(list(chosen))
            return
        if len(found) > 1 or index == len(own) or missing < 0 or missing > rest_after[index]:
            return
        search(index + 1, missing - own[index].open_amount, [*chosen, own[index]])
        search(index + 1, missing, chosen)

    search(0, total, [])
    return found


@lru_cache(maxsize=65_536)
def _plain_name(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name.casefold().translate(_AS_BANKS_WRITE))
    letters = "".join(each if each.isalnum() else " " for each in decomposed if not unicodedata.combining(each))
    # Dotted forms first: "S.A. de C.V." has become "s a de c v".
    joined = re.sub(r"\b(\w) (?=\w\b)", r"\1", letters)
    words = [word for word in _FORMS.sub(" ", " ".join(joined.split())).split() if word not in _JOINING]
    return " ".join(words) or " ".join(letters.split())
