"""The stage of stories about an invoice's life: a scene with taxes if wanted, the verbs in few words, and the sums."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from invoicing.check_numbers import find_gaps
from invoicing.credit_invoice import CreditWish, credit_invoice
from invoicing.domain.invoice import DocumentKind, Invoice
from invoicing.domain.standing import Standing
from invoicing.finalize_drafts import Finalized, finalize_drafts
from invoicing.invoice_period import Target
from invoicing.issue_one_time import OneTimeItem, issue_one_time
from invoicing.propose_invoice import propose_invoice
from invoicing.reissue_invoice import reissue_invoice
from invoicing.terms import Terms
from invoicing.void_invoice import void_invoice
from invoicing.write_off_invoice import write_off_invoice
from ledger.domain.entry import AccountKind
from rating.domain.credit import EntryKind
from tests.invoicing.scene import TERMS, Scene, at
from tests.invoicing.story import SMALL, settled, the_one

ZERO = Decimal(0)


class Stage(Scene):
    """A scene whose invoices live on."""

    def __init__(self, terms: Terms = TERMS) -> None:
        super().__init__()
        self.terms = terms
        self._keys = 0

    def standing(self, invoice: Invoice | Standing) -> Standing:
        invoice_id = invoice.draft.invoice_id if isinstance(invoice, Invoice) else invoice.invoice_id
        return self.books.state.issued.standings[invoice_id]

    def pay(self, invoice: Invoice | Standing, amount: str | None = None) -> None:
        standing = self.standing(invoice)
        self.books.state.issued.pay(standing.invoice_id, standing.amount_open if amount is None else Decimal(amount))

    def fly(self, invoice: Invoice | Standing) -> None:
        """Let a payment of the invoice be under way."""
        standings = self.books.state.issued.standings
        standing = self.standing(invoice)
        standings[standing.invoice_id] = replace(standing, in_flight=True)

    def land(self, invoice: Invoice | Standing) -> None:
        """Let the payment that was under way fail."""
        standings = self.books.state.issued.standings
        standing = self.standing(invoice)
        standings[standing.invoice_id] = replace(standing, in_flight=False)

    async def credit(
        self, invoice: Invoice | Standing, amount: str | None = None, *, key: str | None = None, **lines: str | None
    ) -> Standing:
        """Give something back by hand: an amount, or of lines named `line_2="1.00"`."""
        self._keys += key is None
        wish = CreditWish(
            None if amount is None else Decimal(amount),
            {int(name[5:]): None if value is None else Decimal(value) for name, value in lines.items()},
        )
        reference = self.standing(invoice).name
        return await credit_invoice(
            reference, wish, reason="sorry", key=key or f"key-{self._keys}", books=self.books, terms=self.terms,
            clock=self.clock,
        )  # fmt: skip

    async def void(self, invoice: Invoice | Standing) -> Standing:
        return await void_invoice(self.standing(invoice).name, reason="wrong", books=self.books, clock=self.clock)

    async def write_off(self, invoice: Invoice | Standing) -> Standing:
        return await write_off_invoice(self.standing(invoice).name, reason="gone", books=self.books, clock=self.clock)

    async def reissue(self, invoice: Invoice | Standing) -> list[Standing]:
        return await reissue_invoice(
            self.standing(invoice).name, reason="wrong address", books=self.books, usage=self.usage, terms=self.terms,
            clock=self.clock,
        )  # fmt: skip

    async def one_time(self, *items: OneTimeItem, key: str = "setup") -> Standing:
        return await issue_one_time("acme", list(items), key=key, books=self.books, terms=self.terms, clock=self.clock)

    async def finalize(self, *, is_early: bool = False) -> Finalized:
        return await finalize_drafts(
            drafts=self.books, books=self.books, usage=self.usage, terms=self.terms, clock=self.clock,
            is_early=is_early,
        )  # fmt: skip

    def total_of_documents(self) -> Decimal:
        """Return the sum of all documents that count, credit notes below zero."""
        return sum((one.total for one in self.books.state.issued.counting()), ZERO)

    @property
    def left_of_credits(self) -> Decimal:
        return sum((credit.balance for credit in self.books.state.ledger.held.values()), ZERO)

    def check_books(self) -> None:
        """Hold what holds at all times, whatever was done."""
        state = self.books.state
        invoices = [one.number for one in state.invoices]
        found = find_gaps({series: number + 1 for series, number in state.series.items()}, invoices)
        assert found.faults == ()
        for one in state.issued.standings.values():
            if one.kind is DocumentKind.INVOICE:
                assert one.amount_open >= 0, one
                assert one.creditable >= 0, one
        drawn: dict[str, Decimal] = {}
        for entry in state.ledger.entries:
            if entry.kind in (EntryKind.DRAWN, EntryKind.RETURNED):
                invoice_id = entry.reference.rpartition(":")[2]
                drawn[invoice_id] = drawn.get(invoice_id, ZERO) - entry.amount
        for invoice_id, amount in drawn.items():
            standing = state.issued.standings[invoice_id]
            kept = ZERO if standing.status == "void" else standing.credits_applied - standing.credits_returned
            assert amount == kept, f"{standing.name} keeps {kept} of credits, and drew {amount}"

    async def check_ledger(self) -> None:
        """Hold that the receivable is what is open of all invoices, but for draws, which the memory ledger lacks."""
        balances = await self.books.state.posted.balances()
        standings = [one for one in self.books.state.issued.standings.values() if one.status != "void"]
        billed = sum((one.total for one in standings if one.status != "draft"), ZERO)
        kinds = {AccountKind.REVENUE, AccountKind.TAX_PAYABLE}
        assert -sum((net for (account, _), net in balances.items() if account.kind in kinds), ZERO) == billed

    async def owed(self, *periods: str) -> Decimal:
        """Return what is owed now for billing periods named by an instant within, whatever was billed."""
        meters = self.books.state.meters
        found = ZERO
        async with self.books.view_account("acme") as account:
            assert account is not None
            for subscribed in await account.subscriptions(at("2100-01-01")):
                for period in periods:
                    target = Target(subscribed, subscribed.start.cycle.period_at(at(period)))
                    proposal = await propose_invoice(
                        account, subscribed, target.period, usage=self.usage, meters=meters
                    )
                    found += sum((line.amount for line in proposal.target.lines), ZERO)
        return found


def used_in_october(stage: Stage, requests: int) -> None:
    """Let this be all that is known of October's requests: what was counted before was voided."""
    stage.usage.hours["acme"] = []
    stage.usage.events["acme"] = []
    stage.used("api_requests", requests)


async def october(stage: Stage, requests: int = 350) -> Invoice:
    """Bill acme 30.00 and 0.10 for each request beyond 100."""
    stage.subscribe(SMALL)
    used_in_october(stage, requests)
    return await the_one(stage, "2026-11-02", "2026-10")


async def nothing_new(stage: Stage, *periods: str) -> None:
    """Hold that billing again gives nothing, and that the books agree with themselves."""
    before = list(stage.books.state.invoices)
    await settled(stage, *(periods or ("2026-10",)))
    assert stage.books.state.invoices == before
    stage.check_books()
    await stage.check_ledger()


async def lines_of(stage: Stage, invoice_id: str) -> dict[str, str]:
    async with stage.books.view_account("acme") as account:
        assert account is not None
        return {line.item_key: str(line.amount) for line in await account.issued.lines(invoice_id)}
