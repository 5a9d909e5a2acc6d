"""`meterbook simulate`: what tenants would pay for what they really used, under other prices."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO

import psycopg
import typer
from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.errors import Fault, InvalidInputError, MeterbookError, UnavailableError
from core.meters import Meter
from core.period import format_instant, parse_month
from rating.adapters.postgres_history import PostgresHistory
from rating.domain.other_prices import (
    UNSTORED,
    Documents,
    OtherPrices,
    PlanOf,
    plans_as_sold,
    plans_under,
    read_amount,
    read_fields,
)
from rating.domain.plan import Plan, parse_plan
from rating.domain.price_comparison import Totals
from rating.simulate_documents import totals_document
from rating.simulate_everyone import Task, csv_header, simulate_everyone
from rating.simulate_prices import Question
from rating.simulate_text import print_totals
from runtime.logs import configure_logs
from runtime.postgres import create_pool
from runtime.settings import Settings, load_settings

# Reads a price book into plan documents by name; the catalogue is another stage's.
ReadBook = Callable[[Path, Mapping[str, Meter]], Mapping[str, Mapping[str, Any]]]
REFUSED = 2
_MONTHS_MAX = 36


def create_command(read_book: ReadBook) -> Callable[..., None]:
    """Return the command."""

    def simulate(
        period: Annotated[str, typer.Option(help="Billing periods that begin in 2026-10, or in 2026-10..2026-12.")],
        plan: Annotated[
            str | None, typer.Option(help="Everybody on this plan: PLAN (its newest version) or PLAN@VERSION.")
        ] = None,
        price_book: Annotated[
            Path | None,
            typer.Option(
                help="A catalogue file: its plans take the place of those of the same name; the charges of a plan with"
                " a new name are laid over every plan, meter by meter. With --plan: that plan of the file."
            ),
        ] = None,
        change: Annotated[
            list[str] | None,
            typer.Option("--set", help="CHARGE.FIELD=VALUE, such as cpu.unit_amount=0.06; may be given several times."),
        ] = None,
        minimum: Annotated[str | None, typer.Option(help="A minimum per month instead of any a plan has.")] = None,
        discount: Annotated[str | None, typer.Option(help="Percent off every charge.")] = None,
        without_contracts: Annotated[
            bool, typer.Option("--without-contracts", help="Leave contracts' overrides out under the other prices.")
        ] = False,
        tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be given several times.")] = None,
        csv: Annotated[
            Path | None, typer.Option(metavar="FILE.csv", help="Write a row per tenant and billing period.")
        ] = None,
        top: Annotated[int, typer.Option(min=0, max=1_000, help="How many who would pay most more and less.")] = 10,
        processes: Annotated[
            int, typer.Option(min=0, max=64, help="How many work beside each other; 0: one per processor.")
        ] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    ) -> None:
        """Rate what tenants really used under other prices: revenue, who would pay more, who less.

        Coupons, credits and tax are left out of both sides. Exit codes: 0 done, 2 refused or not possible now.
        """
        settings = load_settings()
        configure_logs(settings, "simulate")
        try:
            request = _Request(plan, price_book, change or [], minimum, discount, not without_contracts, tenant or [])
            found, said = asyncio.run(_run(settings, request, period, csv, top, processes, read_book, show=not as_json))
        except InvalidInputError as refused:
            for fault in refused.faults:
                sys.stderr.write(f"refused: {fault}\n")
            raise typer.Exit(REFUSED) from None
        except MeterbookError as error:
            sys.stderr.write(f"error: {error} [{error.code}]\n")
            raise typer.Exit(REFUSED) from None
        if as_json:
            typer.echo(json.dumps(totals_document(found, question=said, period=period), ensure_ascii=False))
        else:
            print_totals(found, Console(highlight=False), question=said, period=period)
            if csv is not None:
                typer.echo(f"\n{csv}: a row per tenant and billing period")

    return simulate


class _Request:
    """The options as they were given."""

    def __init__(
        self,
        plan: str | None,
        book: Path | None,
        changes: Sequence[str],
        minimum: str | None,
        discount: str | None,
        contracts: bool,
        tenants: Sequence[str],
    ) -> None:
        if not (plan or book or changes or minimum or discount or not contracts):
            reason = "say under which prices: --plan, --price-book, --set, --minimum, --discount or --without-contracts"
            raise InvalidInputError([Fault("nothing_to_simulate", reason, "--plan")])
        self.plan, self.book, self.contracts, self.tenants = plan, book, contracts, tenants
        self.fields = read_fields(changes)
        self.minimum = read_amount(minimum, "--minimum")
        self.discount = read_amount(discount, "--discount", Decimal(100))
        self.changes = changes

    def said(self, other: OtherPrices) -> str:
        """Say in a few words what is simulated."""
        parts = []
        if other.plan is not None:
            plan_id, version = other.plan
            parts.append(f"everybody on {plan_id}" + (f"@{version}" if version != UNSTORED else f" of {self.book}"))
        else:
            parts += [f"{plan_id} of {self.book}" for plan_id in other.book]
            parts += [f"{book.get('name')} of {self.book} laid over every plan" for book in other.laid_over]
        parts += list(self.changes)
        parts += [f"minimum {self.minimum:f}"] if self.minimum is not None else []
        parts += [f"{self.discount:f} % off"] if self.discount is not None else []
        parts += [] if self.contracts else ["without contracts"]
        return "What if: " + ", ".join(parts)


async def _run(
    settings: Settings,
    request: _Request,
    period: str,
    csv_file: Path | None,
    top: int,
    processes: int,
    read_book: ReadBook,
    *,
    show: bool,
) -> tuple[Totals, str]:
    now = datetime.now(UTC)
    first, last = _read_months(period, now)
    try:
        async with create_pool(settings, max_size=1) as pool:
            history = PostgresHistory(pool)
            meters, documents = await history.meters(), await history.plans()
            book = read_book(request.book, meters) if request.book is not None else {}
            other = _other_prices(request, book, documents)
            _check_prices(other, documents, meters)
            question = Question(first, last, now, other, top)
            await _check_tenants(history, request.tenants)
            count = len(set(request.tenants)) or await history.how_many(question.span)
        task = Task(settings, question, documents, meters)
        workers = 1 if count <= 1_000 else processes or os.cpu_count() or 1
        run = partial(simulate_everyone, task, only=request.tenants, processes=workers)
        with _opened(csv_file) as file, _bar(count, show=show) as bar:
            if file is not None:
                file.write(csv_header())
            at = bar.task_ids[0]
            write = file.write if file is not None else None
            totals = await run(write=write, progress=lambda tenants: bar.advance(at, tenants))
    except (ClickHouseError, psycopg.Error, ConnectionError, TimeoutError) as error:
        raise UnavailableError(f"a store does not answer now: {str(error)[:300]}") from error
    return totals, request.said(other)


def _other_prices(request: _Request, book: Mapping[str, Mapping[str, Any]], documents: Documents) -> OtherPrices:
    stored = {plan_id for plan_id, _ in documents}
    chosen = _read_plan(request.plan, book, documents, from_book=request.book is not None)
    new = {plan_id: one for plan_id, one in book.items() if plan_id not in stored}
    if chosen is not None:
        new = {}
    charges = {
        charge.get("id") for document in (*documents.values(), *book.values()) for charge in document.get("charges", ())
    }
    faults = [
        Fault("unknown_charge", f"no plan has a charge {charge['id']!r}", "--set")
        for charge in request.fields.get("charges", ())
        if charge["id"] not in charges
    ]
    if faults:
        raise InvalidInputError(faults)
    return OtherPrices(
        plan=chosen,
        book={plan_id: one for plan_id, one in book.items() if plan_id not in new},
        laid_over=tuple(new.values()),
        fields=request.fields,
        minimum=request.minimum,
        discount=request.discount,
        contracts=request.contracts,
    )


def _read_plan(
    text: str | None, book: Mapping[str, Any], documents: Documents, *, from_book: bool
) -> tuple[str, int] | None:
    if text is None:
        return None
    plan_id, has_version, number = text.partition("@")
    if from_book:
        if plan_id in book and not has_version:
            return plan_id, UNSTORED
        reason = f"the price book has no plan {text[:80]!r}; it has: {', '.join(sorted(book))}"
        raise InvalidInputError([Fault("unknown_plan", reason, "--plan")])
    versions = sorted(version for known, version in documents if known == plan_id)
    if has_version and not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise InvalidInputError([Fault("invalid_version", f"expected PLAN@VERSION, got {text[:80]!r}", "--plan")])
    if not versions or (has_version and int(number) not in versions):
        known = ", ".join(sorted({plan for plan, _ in documents})) or "none"
        reason = f"no plan {text[:80]!r}" + (f"; its versions: {versions}" if versions else f"; plans: {known[:500]}")
        raise InvalidInputError([Fault("unknown_plan", reason, "--plan")])
    return plan_id, int(number) if has_version else versions[-1]


def _check_prices(other: OtherPrices, documents: Documents, meters: Mapping[str, Meter]) -> None:
    """Read every plan under the other prices before anything is rated, so that faults are told with their paths."""

    def read(plan_id: str, document: Mapping[str, Any]) -> Plan:
        return parse_plan(plan_id, document, meters)

    plans, as_sold = plans_under(other, documents, read), plans_as_sold(documents, read)
    faults: list[Fault] = []
    asked = [other.plan] if other.plan is not None else [*documents, *((plan_id, UNSTORED) for plan_id in other.book)]
    for plan_id, version in asked:
        try:
            plans(plan_id, version, {})
        except InvalidInputError as refused:
            if version == UNSTORED or _is_readable(as_sold, plan_id, version):
                # A plan in another currency than a book is left as not comparable, tenant by tenant.
                faults += [fault for fault in refused.faults if fault.code != "other_currency"]
    if faults:
        raise InvalidInputError(list(dict.fromkeys(faults)))


def _is_readable(plans: PlanOf, plan_id: str, version: int) -> bool:
    """Tell whether a stored plan can be read as it was sold: one that cannot is no fault of the other prices."""
    try:
        plans(plan_id, version, {})
    except InvalidInputError:
        return False
    return True


async def _check_tenants(history: PostgresHistory, tenant_ids: Sequence[str]) -> None:
    known = await history.known(tenant_ids) if tenant_ids else set()
    unknown = sorted(set(tenant_ids) - known)
    if unknown:
        raise InvalidInputError([Fault("unknown_tenant", f"no tenant {name[:80]!r}", "--tenant") for name in unknown])


def _read_months(text: str, now: datetime) -> tuple[date, date]:
    start, is_range, end = text.partition("..")
    first, last = parse_month(start), parse_month(end if is_range else start)
    if last.start < first.start:
        raise InvalidInputError([Fault("invalid_period", f"{end} is before {start}", "--period")])
    months = (last.start.year - first.start.year) * 12 + last.start.month - first.start.month + 1
    if months > _MONTHS_MAX:
        raise InvalidInputError([Fault("invalid_period", f"{months} months; at most {_MONTHS_MAX}", "--period")])
    if last.end > now:
        reason = f"{text} ends at {format_instant(last.end)}; usage is still coming in"
        raise InvalidInputError([Fault("period_not_over", reason, "--period")])
    return first.start.date(), last.start.date()


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO | None]:
    """Open the CSV file, if there is to be one; a file that cannot be written is refused."""
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidInputError([Fault("unwritable_file", error.strerror or str(error), str(path))]) from error
    with file:
        yield file


def _bar(count: int, *, show: bool) -> Progress:
    """Return a progress bar on standard error, where a person sees it."""
    bar = Progress(
        TextColumn("rating tenants"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not (show and sys.stderr.isatty()),
    )
    bar.add_task("tenants", total=count)
    return bar
