"""`meterbook reconcile`: compare all ways of counting the same usage, show gaps, repair what is only a view."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from core.errors import Fault, InvalidInputError
from core.meters import Registry
from core.period import Period
from metering.reconcile.documents import print_report, report_document
from metering.reconcile.ports import Rerun
from metering.reconcile.reconcile import Report, Scope, Views, reconcile_scope
from metering.reconcile.repair_gaps import Repair, repair_gaps
from runtime.logs import configure_logs
from runtime.settings import Settings, load_settings

_LATELY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """What the command works with; whoever opens it knows the stages."""

    views: Views
    registry: Registry
    rerun: Rerun


OpenReconciler = Callable[[Settings], AbstractAsyncContextManager[Reconciler]]


def create_command(open_reconciler: OpenReconciler) -> Callable[..., None]:
    """Return the command."""

    def reconcile(
        tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be given several times.")] = None,
        meter: Annotated[list[str] | None, typer.Option(help="Only this meter; may be given several times.")] = None,
        start: Annotated[
            str | None, typer.Option("--from", help="Hours from then on (ISO 8601, UTC); 24 hours ago if not given.")
        ] = None,
        end: Annotated[str | None, typer.Option("--to", help="Hours before then; now if not given.")] = None,
        full: Annotated[bool, typer.Option("--full", help="All hours there are.")] = False,
        repair: Annotated[
            bool, typer.Option("--repair", help="Let ClickHouse and Redis be written anew where they differ.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    ) -> None:
        """Compare raw usage, journal, ClickHouse and Redis; exit code 1 if a gap is left.

        Usage that is on its way is waited for or left out, never taken for a gap.
        """
        settings = load_settings()
        configure_logs(settings, "reconcile")
        if full and (start or end):
            raise InvalidInputError([Fault("ambiguous_choice", "either --full or --from and --to", "--full")])
        now = datetime.now(UTC)
        span = None if full else _span(start, end, now)
        scope = Scope(tuple(tenant) if tenant else None, tuple(meter) if meter else None, span)
        report, repairs = asyncio.run(_run(open_reconciler, settings, scope, repair=repair))
        if as_json:
            typer.echo(json.dumps(report_document(report, repairs)))
        else:
            print_report(report, repairs, Console())
        if report.gaps:
            raise typer.Exit(1)

    return reconcile


async def _run(
    open_reconciler: OpenReconciler, settings: Settings, scope: Scope, *, repair: bool
) -> tuple[Report, Sequence[Repair]]:
    async with open_reconciler(settings) as tools:
        faults = [
            Fault("unknown_tenant", f"no tenant {name[:80]!r}", "--tenant")
            for name in scope.tenants or ()
            if name not in tools.registry.tenants
        ] + [
            Fault("unknown_meter", f"no meter {name[:80]!r}", "--meter")
            for name in scope.meters or ()
            if name not in tools.registry.by_id
        ]
        if faults:
            raise InvalidInputError(faults)
        report = await reconcile_scope(tools.views, tools.registry, scope)
        if not (repair and report.gaps):
            return report, ()
        repairs, after = await repair_gaps(report.gaps, scope, tools.views, tools.registry, tools.rerun)
        return after, repairs


def _span(start: str | None, end: str | None, now: datetime) -> Period:
    first, last = _instant(start, "--from") or now - _LATELY, _instant(end, "--to") or now + timedelta(hours=1)
    if first >= last:
        raise InvalidInputError([Fault("invalid_period", "the end is not after the start", "--to")])
    # Whole hours: a part of one cannot be compared.
    whole = timedelta(hours=1) - timedelta(microseconds=1)
    return Period(_hour(first), _hour(last + whole))


def _hour(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _instant(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError([Fault("invalid_time", f"expected ISO 8601, got {text[:80]!r}", option)]) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
