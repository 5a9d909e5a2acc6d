"""The world of a story across all stages: the product's own verbs and PostgreSQL adapters put together, nothing more.

Usage is in memory; plans, subscriptions, invoices, payments, bank, dunning and the ledger are in PostgreSQL; Stripe and
PayPal are the stand-ins over real sockets. `outbox` rows are handed to those who read their topics, every one of them
twice, and webhooks come signed, every one of them twice: as messages may, and webhooks do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from core.bank_account import BankAccount
from core.clock import ManualClock
from core.errors import InvalidInputError
from core.messages import InvoicingRequest
from core.topics import INVOICE_FINALIZED
from invoicing.adapters.postgres_books import PostgresBooks
from invoicing.adapters.postgres_issued import PostgresDrafts
from invoicing.adapters.postgres_numbers import PostgresNumbers
from invoicing.adapters.postgres_overdue import PostgresDueInvoices
from invoicing.adapters.postgres_register import PostgresRegister
from invoicing.adapters.postgres_settlements import PostgresSettlements
from invoicing.adapters.postgres_vat_checks import PostgresVatChecks
from invoicing.check_numbers import check_numbers
from invoicing.consumer import settlement_handlers
from invoicing.credit_invoice import CreditWish, credit_invoice
from invoicing.domain.exchange import ExchangeRates
from invoicing.domain.invoice import Invoice
from invoicing.domain.standing import Standing
from invoicing.domain.tax.seller_tax import SellerTax
from invoicing.finalize_drafts import finalize_drafts
from invoicing.invoice_period import invoice_period
from invoicing.issue_one_time import OneTimeItem, issue_one_time
from invoicing.mark_overdue import mark_overdue
from invoicing.reissue_invoice import reissue_invoice
from invoicing.tax_ports import VatAnswer
from invoicing.terms import Terms
from invoicing.void_invoice import void_invoice
from invoicing.write_off_invoice import write_off_invoice
from ledger.adapters.postgres_audit import PostgresAudit
from ledger.check_ledger import check_ledger
from payments.adapters.postgres_store import PostgresPayments
from payments.adapters.stripe_events import EVENT_TYPES, EVENTS_KEPT, StripeWebhookReader
from payments.adapters.stripe_provider import StripeProvider
from payments.apply_webhook import apply_next_webhook
from payments.ask_payers import give_up_waiting, tell_payers
from payments.bank.adapters.postgres_desk import PostgresBankDesk
from payments.bank.confirm_match import Confirmed, Wanted, Wish, confirm_match
from payments.bank.confirm_return import confirm_return
from payments.bank.import_statement import import_statements, read_statements
from payments.bank.propose_matches import confirm_exact
from payments.close_pending_payments import close_pending_payments
from payments.consumer import create_handler
from payments.domain.refund import Refund
from payments.dunning.adapters.charge_again import ChargeAgainAtProviders
from payments.dunning.adapters.postgres_dunning import PostgresDunning
from payments.dunning.read_schedules import load_schedules
from payments.dunning.run_dunning import run_dunning
from payments.ports import Payer, PayerAction, WebhookReader
from payments.receive_webhook import receive_webhook
from payments.refund_payment import RefundRequest, refund_payment
from payments.set_payment_method import set_payment_method
from payments.sweep_provider_events import sweep_provider_events
from rating.adapters.postgres_credits import PostgresCreditLedger
from rating.domain.cycle import Interval
from runtime.postgres import Pool
from subscriptions.adapters.postgres import PostgresSubscriptionStore
from subscriptions.adapters.postgres_coupons import PostgresCouponStore
from subscriptions.adapters.postgres_credits import PostgresCreditBooks
from subscriptions.adapters.postgres_holders import PostgresSaleFacts
from subscriptions.create_coupon import create_coupon
from subscriptions.create_subscription import NewSubscription, create_subscription
from subscriptions.create_tenant import create_tenant
from subscriptions.domain.tenant import Tenant
from subscriptions.expire_credits import expire_credits
from subscriptions.grant_credit import grant_credit
from subscriptions.record_changes import Asked
from subscriptions.redeem_coupon import redeem_coupon
from subscriptions.refund_credit import refund_credit
from tests.invoicing.memory import MemoryUsage
from tests.invoicing.scene import TERMS, at, local
from tests.invoicing.tax.taxing import tables
from tests.payments.bank.write_statements import TheStatement, Told, write_mt940
from tests.standins.paypal_signing import Authority
from tests.standins.stripe_account import Cause
from tests.standins.stripe_cards import CARDS
from tests.standins.stripe_disputes import move_dispute, open_dispute
from tests.standins.stripe_intents import authenticate_intent
from tests.standins.stripe_server import StripeStandIn
from tests.standins.stripe_webhooks import encode_event, sign
from tests.stories.paypal_side import PayPalSide
from tests.stories.reading import Readings

D = Decimal
_SECRET = "whsec_stories"
_SCHEDULES = load_schedules(None)
_OUTSIDE = Cause(None, None)


def rates(currency: str, rate: str) -> ExchangeRates:
    """Return what one euro is worth in a currency, the same on every day of three years."""
    days = tuple(at("2026-01-01").date() + timedelta(days=day) for day in range(3 * 365))
    return ExchangeRates("EUR", "ECB", days, {day: {currency: D(rate)} for day in days})


class World(Readings):
    """One seller, its tenants, and the days as they pass."""

    def __init__(self, pool: Pool, authority: Authority) -> None:
        super().__init__(pool)
        self._authority = authority
        self.clock = ManualClock(at("2026-10-01T09:00"))
        self.usage = MemoryUsage()
        self.terms: Terms = TERMS
        self.stripe = StripeStandIn("sk_test_stories", _SECRET)
        self.paypal: PayPalSide | None = None
        self.store, self.books = PostgresPayments(pool), PostgresBooks(pool)
        self.settlements = PostgresSettlements(pool)
        self.links: dict[str, str] = {}
        self.accounts = {
            currency: BankAccount(currency, "Meterbook", "Bank", account_number=number, routing="37040044")
            for currency, number in (("EUR", "0532013000"), ("USD", "0532013001"))
        }
        self._balances = dict.fromkeys(self.accounts, D("1000.00"))
        self._statements = list[bytes]()
        self._subscriptions: dict[str, str] = {}
        self._billed: set[tuple[str, str]] = set()
        self._handed_over, self._keys = 0, 0
        self._delivered: set[str] = set()

    # The seller and its tenants

    async def start(self) -> None:
        await self.stripe.start()
        self.card = StripeProvider(
            self.stripe.api_key, self.stripe.url, return_url="https://books.example/paid", timeout_seconds=20
        )

    async def stop(self) -> None:
        await self.card.close()
        await self.stripe.stop()
        if self.paypal is not None:
            await self.paypal.stop()

    def sell_from(self, tax: SellerTax, **terms: Any) -> None:
        """Let the seller charge tax from here on."""
        self.terms = replace(self.terms, seller=replace(self.terms.seller, tax=tax), tables=tables(), **terms)

    async def tenant(
        self, name: str, plan: str | None = None, *, pays: str | None = "pm_card_visa", **facts: Any
    ) -> None:
        """Let a tenant come, in Germany and paying in euros if not said otherwise; `pays` is a test card or `paypal`.

        `plan` is what it subscribes to now.
        """
        known = {"email": f"books@{name}.example", "country": "DE", "currency": "EUR", "address": "1 Road\nTown"}
        async with self.pool.connection() as connection, connection.transaction():
            store = PostgresSubscriptionStore(connection)
            await create_tenant(Tenant(name, name.title(), **{**known, **facts}), store=store, now=self.clock.now())
        if pays is not None:
            await self.pays_by(name, pays)
        if plan is not None:
            await self.subscribe(name, plan)

    async def pays_by(self, name: str, method: str) -> None:
        """Save how a tenant pays: a test card, or `paypal`."""
        registrar: Any = self.card
        if method == "paypal":
            self.paypal = self.paypal or await PayPalSide.open(self.pool, self.store, self.clock, self._authority)
            registrar, method = self.paypal.provider, "approval"
        await set_payment_method(name, method, store=self.store, registrar=registrar, clock=self.clock)

    def change_card(self, card: str) -> None:
        """Let every card that is saved behave like another test card from now on."""
        for identity in self.stripe.account.cards:
            self.stripe.account.cards[identity] = CARDS[card]

    async def subscribe(self, name: str, plan: str, **facts: Any) -> str:
        """Subscribe a tenant to a plan now, or as `facts` of `NewSubscription` say; returns the subscription's id."""
        wanted = NewSubscription(name, plan, **{"interval": Interval.MONTH, **facts})
        async with self.pool.connection() as connection, connection.transaction():
            store = PostgresSubscriptionStore(connection)
            done = await create_subscription(wanted, asked=Asked("ann"), store=store, clock=self.clock)
        self._subscriptions[name] = done.subscription.subscription_id
        return done.subscription.subscription_id

    async def vies_answers(self, name: str, number: str) -> None:
        """Let the member state say that a tenant's VAT number is in use, and a person release the account."""
        answer = VatAnswer(number, valid=True, checked_at=self.clock.now())
        assert await PostgresVatChecks(self.pool).record(name, answer)
        assert await PostgresRegister(self.pool).unpark(name)

    async def change(self, name: str, verb: Any, *arguments: Any, **how: Any) -> None:
        """Change what a tenant holds, by one of the verbs of `subscriptions`."""
        asked = Asked("ann", "because", allow_backdated="when" in how)
        async with self.pool.connection() as connection, connection.transaction():
            store = PostgresSubscriptionStore(connection)
            await verb(self._subscriptions[name], *arguments, asked=asked, store=store, clock=self.clock, **how)

    async def offer(self, coupon: str, name: str, **document: Any) -> None:
        """Offer a coupon and redeem it for a tenant."""
        async with self.pool.connection() as connection, connection.transaction():
            store, now = PostgresCouponStore(connection), self.clock.now()
            await create_coupon(coupon, document, store=store, now=now)
            await redeem_coupon(coupon, name, store=store, now=now)

    async def grant(self, name: str, amount: str, **document: Any) -> None:
        """Grant a tenant credit."""
        self._keys += 1
        async with self.pool.connection() as connection, connection.transaction():
            await grant_credit(
                name, {"amount": amount, **document}, key=f"grant-{self._keys}",
                ledger=PostgresCreditLedger(connection), facts=PostgresSaleFacts(connection), now=self.clock.now(),
            )  # fmt: skip

    async def pay_out(self, name: str, amount: str) -> None:
        """Take an amount off a tenant's newest credit, because its money is given back."""
        async with self.pool.connection() as connection, connection.transaction():
            ledger = PostgresCreditLedger(connection)
            (*_, credit) = await ledger.credits(name)
            await refund_credit(
                credit.grant.grant_id, amount, key="out", reason="refunded", ledger=ledger, now=self.clock.now()
            )

    def used(self, name: str, meter: str, quantity: str | int, when: str, **dimensions: str) -> None:
        """Let a tenant use something."""
        self.usage.add(name, meter, quantity, at(when), **dimensions)

    def take_out(self, name: str, meter: str) -> None:
        """Void all that was counted of a meter."""
        hours = self.usage.hours.get(name, [])
        self.usage.hours[name] = [one for one in hours if one.meter_id != meter]

    # Invoices

    async def bill(self, name: str, month: str, now: str) -> list[Invoice]:
        """Travel to a moment, bill a tenant's month, and let everything that follows from it happen."""
        self.travel(now)
        documents = await self._bill(name, month)
        await self.turn()
        return documents

    async def bill_one(self, name: str, month: str, now: str) -> Invoice:
        """Bill what gives one document."""
        (document,) = await self.bill(name, month, now)
        return document

    async def _bill(self, name: str, month: str) -> list[Invoice]:
        self._billed.add((name, month))
        request = InvoicingRequest(tenant_id=name, period=month, run_id="story", requested_at="")
        return await invoice_period(request, books=self.books, usage=self.usage, terms=self.terms, clock=self.clock)

    async def one_time(self, name: str, *items: OneTimeItem, key: str = "setup") -> Standing:
        done = await issue_one_time(name, list(items), key=key, books=self.books, terms=self.terms, clock=self.clock)
        await self.turn()
        return done

    async def credit(self, number: str, amount: str | None = None, key: str = "sorry") -> Standing:
        wish = CreditWish(None if amount is None else D(amount))
        done = await credit_invoice(
            number, wish, reason="sorry", key=key, books=self.books, terms=self.terms, clock=self.clock
        )
        await self.turn()
        return done

    async def void(self, number: str) -> Standing:
        done = await void_invoice(number, reason="wrong", books=self.books, clock=self.clock)
        await self.turn()
        return done

    async def write_off(self, number: str) -> Standing:
        done = await write_off_invoice(number, reason="gone", books=self.books, clock=self.clock)
        await self.turn()
        return done

    async def reissue(self, number: str) -> list[Standing]:
        done = await reissue_invoice(
            number, reason="address", books=self.books, usage=self.usage, terms=self.terms, clock=self.clock
        )
        await self.turn()
        return done

    # Money

    @property
    def charged(self) -> list[str]:
        """What Stripe has really taken, in minor units, such as `5950 eur`."""
        return [f"{one['amount']} {one['currency']}" for one in self.stripe.account.ledger()]

    async def refund(self, number: str, amount: str | None, key: str = "first") -> Refund:
        """Give money of an invoice's payment back."""
        payment_id, _ = await self.payment_of(number)
        wish = RefundRequest(payment_id, key, None if amount is None else D(amount), "asked for it", "clerk")
        done = await refund_payment(wish, store=self.store, providers=self.providers, clock=self.clock)
        await self.turn()
        return done

    async def dispute(self, number: str, ending: str | None = None) -> None:
        """Let the payer's bank take an invoice's payment back; `ending` is how the dispute that is open ends."""
        _, reference = await self.payment_of(number)
        account = self.stripe.account
        if ending is None:
            open_dispute(
                account, account.charges[account.payment_intents[reference]["latest_charge"]], "chargeback", _OUTSIDE
            )
        else:
            (dispute,) = [one for one in account.disputes.values() if one["payment_intent"] == reference]
            move_dispute(account, dispute["id"], ending, _OUTSIDE)
        await self.turn()

    async def authenticate(self, number: str) -> None:
        """Pass 3-D Secure as the payer."""
        _, reference = await self.payment_of(number)
        authenticate_intent(self.stripe.account, reference, success=True, cause=_OUTSIDE)
        await self.turn()

    async def wire(self, *transfers: tuple[str, str], currency: str = "EUR", is_return: bool = False) -> list[str]:
        """Let the bank's next statement come with transfers (amount, text); returns the entries that still wait.

        What names its invoice and pays it to the cent confirms itself.
        """
        day = self.clock.now().date()
        told = [Told(day, D(amount), text, "Acme", is_return=is_return) for amount, text in transfers]
        statement = TheStatement(
            told, self._balances[currency], day - timedelta(days=1), day,
            f"37040044/{self.accounts[currency].account_number}", currency, f"{len(self._statements) + 1:05d}/001",
        )  # fmt: skip
        self._balances[currency] = statement.closing
        self._statements.append(write_mt940(statement))
        entries = await self._import(self._statements[-1])
        await self.turn()
        waiting = await self.rows("SELECT entry_id FROM bank_entries WHERE status <> 'done' ORDER BY entry_id")
        return [one for one in entries if one in {row["entry_id"] for row in waiting}]

    async def confirm(self, entry: str, *numbers: str | tuple[str, str], **wish: Any) -> Confirmed:
        """Say as a person what a transfer is for: invoices, with what each gets if it is not all that is open."""
        named = [(one, None) if isinstance(one, str) else (one[0], D(one[1])) for one in numbers]
        wanted = Wish(tuple(Wanted(number, amount) for number, amount in named), **wish)
        done = await confirm_match(entry, wanted, desk=self.desk, clock=self.clock, by="ada")
        await self.turn()
        return done

    async def give_back(self, entry: str, original: str) -> None:
        """Say which transfer another one takes back."""
        await confirm_return(entry, original, desk=self.desk, clock=self.clock, by="ada")
        await self.turn()

    @property
    def desk(self) -> PostgresBankDesk:
        return PostgresBankDesk(self.pool)

    async def _import(self, content: bytes) -> list[str]:
        done = await import_statements(
            content, read_statements(content, file="bank.sta"), file="bank.sta", accounts=list(self.accounts.values()),
            desk=self.desk, clock=self.clock, by="ada",
        )  # fmt: skip
        new = [entry.entry_id for one in done for entry in one.new_entries]
        await confirm_exact(desk=self.desk, clock=self.clock, tolerances={}, only=set(new))
        return new

    # Time and messages

    @property
    def providers(self) -> Mapping[str, Any]:
        return {"stripe": self.card, **({"paypal": self.paypal.provider} if self.paypal else {})}

    def travel(self, moment: str) -> None:
        """Go to a moment of UTC, and never back."""
        there = local(moment, "UTC")
        assert there >= self.clock.now(), f"{moment} was before"
        self.clock.travel_to(there)

    async def live_until(self, moment: str) -> None:
        """Let the days pass, with all that is done by the clock, at ten every morning."""
        end = local(moment, "UTC")
        while (morning := _next_morning(self.clock.now())) <= end:
            self.clock.travel_to(morning)
            await self.upkeep()
        self.clock.travel_to(end)

    async def upkeep(self) -> None:
        """Do once what workers do by the clock."""
        await finalize_drafts(
            drafts=PostgresDrafts(self.pool), books=self.books, usage=self.usage, terms=self.terms, clock=self.clock
        )
        await mark_overdue(invoices=PostgresDueInvoices(self.pool), clock=self.clock)
        await tell_payers(
            store=self.store, payers=self.store, provider=self.card, notice=self, time_to_act=timedelta(hours=72),
            clock=self.clock,
        )  # fmt: skip
        await give_up_waiting(store=self.store, provider=self.card, clock=self.clock)
        await close_pending_payments(store=self.store, providers=self.providers, clock=self.clock)
        if self.paypal is not None:
            await self.paypal.upkeep()
        await self.turn()
        charge_again = ChargeAgainAtProviders(self.store, self.providers, self.clock)
        book = PostgresDunning(self.pool)
        while await run_dunning(book=book, charge_again=charge_again, schedules=_SCHEDULES, clock=self.clock):
            await self.turn()
        await expire_credits(PostgresCreditBooks(self.pool), now=self.clock.now())
        await self.turn()

    async def turn(self) -> None:
        """Carry messages and webhooks to whom they are for, until there are no more."""
        while await self._hand_over() or await self._take_webhooks():
            pass

    async def _hand_over(self) -> bool:
        rows = await self.rows(
            "SELECT outbox_id, topic, payload FROM outbox WHERE outbox_id > %s ORDER BY outbox_id", self._handed_over
        )
        handlers = {topic.name: handle for topic, handle in settlement_handlers(self.settlements, self.clock).items()}
        handlers[INVOICE_FINALIZED.name] = create_handler(self.store, self.providers, self.clock)
        for row in [each for each in rows for _ in range(2)]:
            if handle := handlers.get(row["topic"]):
                await handle(bytes(row["payload"]))
            self._handed_over = row["outbox_id"]
        return bool(rows)

    async def _take_webhooks(self) -> bool:
        events = [one for one in self.stripe.account.events.values() if one["type"] in EVENT_TYPES]
        new = [one for one in events if one["id"] not in self._delivered]
        for event in [each for each in new for _ in range(2)]:
            body = encode_event(event)
            signature = sign(body, _SECRET, int(self.clock.now().timestamp()))
            await receive_webhook(body, signature, secrets=[_SECRET], inbox=self.store, clock=self.clock)
            self._delivered.add(event["id"])
        is_any = bool(new)
        readers: dict[str, WebhookReader] = {"stripe": StripeWebhookReader()}
        if self.paypal is not None:
            is_any = await self.paypal.take_webhooks() or is_any
            readers["paypal"] = self.paypal.reader
        while await apply_next_webhook(store=self.store, readers=readers, clock=self.clock) is not None:
            pass
        return is_any

    async def send_action_link(
        self, payer: Payer, payment: Any, action: PayerAction, *, is_reminder: bool = False
    ) -> None:
        """Be the mail server (`PayerNotice`)."""
        self.links[payment.payment_id] = action.url

    # Run again, nothing new

    async def nothing_new(self) -> None:
        """Do all of it again, and hold that not one row says anything else; then prove ledger and numbers.

        Again: billing of every month, every message, every webhook, a sweep for those that never came, every bank
        statement, and all that workers do by the clock.
        """
        before = await self.picture()
        for name, month in sorted(self._billed):
            with suppress(InvalidInputError):  # a period that is not over yet was refused before, too
                assert await self._bill(name, month) == [], f"{name} owes more for {month}"
        self._handed_over = 0
        self._delivered.clear()
        if self.paypal is not None:
            self.paypal.delivered.clear()
        for content in self._statements:
            assert await self._import(content) == []
        await self.turn()
        await sweep_provider_events(
            source=self.card, inbox=self.store, store=self.store, history=EVENTS_KEPT, clock=self.clock
        )
        await self.upkeep()
        after = await self.picture()
        changed = [name for name in before if before[name] != after[name]]
        assert changed == [], "run again, nothing new"
        assert (await check_ledger(PostgresAudit(self.pool))).faults == ()
        assert (await check_numbers(PostgresNumbers(self.pool))).faults == ()

    async def picture(self) -> dict[str, Any]:
        """Return a digest of every table but the marks of workers, and what the providers took."""
        return {
            **await self.digests(),
            "taken by Stripe": self.stripe.account.ledger(),
            "taken by PayPal": self.paypal.standin.account.ledger() if self.paypal else [],
        }

    @asynccontextmanager
    async def untouched(self, *but: str) -> AsyncIterator[None]:
        """Hold that a block leaves every row as it was, but for tables that are named."""
        before = await self.picture()
        yield
        after = await self.picture()
        assert [name for name in before if before[name] != after[name] and name not in but] == [], "half done"


def _next_morning(now: datetime) -> datetime:
    morning = now.replace(hour=10, minute=0, second=0, microsecond=0)
    return morning if morning > now else morning + timedelta(days=1)
