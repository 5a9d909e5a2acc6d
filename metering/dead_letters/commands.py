"""`meterbook deadletters`: list, show, replay and discard what was refused."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from core.errors import Fault, InvalidInputError
from metering.dead_letters.desk import DeadLetterDesk, open_desk
from metering.dead_letters.discard_letters import Discarded
from metering.dead_letters.documents import (
    count_document,
    discarded_document,
    letter_document,
    page_document,
    replayed_document,
)
from metering.dead_letters.domain.letter import Place, parse_place
from metering.dead_letters.domain.letter_filter import LetterFilter
from metering.dead_letters.replay_letters import Replayed, ReplayOrder
from metering.dead_letters.tables import print_counts, print_letter, print_letters, print_results
from runtime.logs import configure_logs
from runtime.settings import load_settings

app = typer.Typer(help="Refused records: look at them, send them back, put them away.", no_args_is_help=True)
T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Code = Annotated[str | None, typer.Option(help="Only letters with this code, such as unknown_meter.")]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's, as far as body or key tell.")]
Topic = Annotated[str | None, typer.Option(help="Only this topic: usage.rejected or billing.rejected.")]
Since = Annotated[str | None, typer.Option(help="Only letters put aside from then on (ISO 8601, UTC).")]
Until = Annotated[str | None, typer.Option(help="Only letters put aside before (ISO 8601, UTC).")]
By = Annotated[str | None, typer.Option(help="Who does it; the user who is logged in if not given.")]
Chosen = Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="topic/partition/offset")]
FromFile = Annotated[Path | None, typer.Option(help="A file with one letter a line, - for standard input.")]
Most = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many letters.")]
_PER_PAGE = 50


@app.command(name="list")
def list_(
    code: Code = None,
    tenant: Tenant = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    state: Annotated[str, typer.Option(help="open | replayed | discarded | all")] = "open",
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Oldest first instead of newest.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Letters a page.")] = _PER_PAGE,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended.")] = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="How many there are by code, instead of the letters.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first; only open ones unless told otherwise."""
    if counts:
        if any((code, tenant, since, until, cursor)):
            raise InvalidInputError([Fault("not_countable", "counts are by topic and code only", "--counts")])
        _list_counts(topic, as_json)
        return
    wanted = _filter(code, tenant, topic, since, until, state)
    page = _with_desk(
        lambda desk: desk.page(wanted, order="oldest" if oldest_first else "newest", limit=limit, cursor=cursor)
    )
    if as_json:
        typer.echo(json.dumps(page_document(page)))
        return
    print_letters(page.letters, Console())
    if page.cursor is not None:
        stopped = "" if len(page.letters) == limit else f"looked at {page.looked_at:,} letters; "
        typer.echo(f"{stopped}more: --cursor {page.cursor}")


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="topic/partition/offset, as the list shows it")],
    as_json: AsJson = False,
) -> None:
    """Show everything about a letter: where it came from, why it was refused, what was done about it, its body."""
    place = parse_place(letter)
    found, actions = _with_desk(lambda desk: desk.show(place))
    if as_json:
        typer.echo(json.dumps(letter_document(found, actions)))
    else:
        print_letter(found, actions, Console())


@app.command()
def replay(
    letters: Chosen = None,
    from_file: FromFile = None,
    code: Code = None,
    tenant: Tenant = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    limit: Most = None,
    edit: Annotated[
        Path | None, typer.Option(help="Send this file's bytes instead of the (one) letter's body.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were replayed or discarded.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; say what would be refused again.")] = False,
    by: By = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Send letters back to where they came from; an event that arrives twice counts once.

    Name letters, give a file of them, or conditions (then all open letters that meet them).
    """
    order = ReplayOrder(
        by or getpass.getuser(), reason, again=again, dry_run=dry_run, mended=_read(edit) if edit else None
    )
    # Before anything is sent, not with the second page.
    if edit and (from_file or any((code, tenant, topic, since, until)) or len(letters or []) != 1):
        raise InvalidInputError([Fault("one_letter_only", "a mended body replaces that of one letter", "--edit")])

    async def work(desk: DeadLetterDesk) -> list[Replayed]:
        results: list[Replayed] = []
        async for places in _chosen(desk, letters, from_file, code, tenant, topic, since, until, limit, again=again):
            results += await desk.replay(places, order)
        return results

    results = _with_desk(work)
    if as_json:
        typer.echo(json.dumps({"data": [replayed_document(result) for result in results]}))
    else:
        print_results(results, Console())
    _exit(results)


@app.command()
def discard(
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    letters: Chosen = None,
    from_file: FromFile = None,
    code: Code = None,
    tenant: Tenant = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    limit: Most = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Put open letters away for good, with a reason; nothing is deleted."""
    actor = by or getpass.getuser()

    async def work(desk: DeadLetterDesk) -> list[Discarded]:
        results: list[Discarded] = []
        async for places in _chosen(desk, letters, from_file, code, tenant, topic, since, until, limit, again=False):
            results += await desk.discard(places, actor=actor, reason=reason)
        return results

    results = _with_desk(work)
    if as_json:
        typer.echo(json.dumps({"data": [discarded_document(result) for result in results]}))
    else:
        print_results(results, Console())
    _exit(results)


def _list_counts(topic: str | None, as_json: bool) -> None:
    LetterFilter(topic)
    found, _ = _with_desk(lambda desk: desk.counts())
    wanted = [count for count in found if topic in (None, count.topic)]
    if as_json:
        typer.echo(json.dumps({"data": [count_document(count) for count in wanted]}))
    else:
        print_counts(wanted, Console())


async def _chosen(
    desk: DeadLetterDesk,
    letters: list[str] | None,
    from_file: Path | None,
    code: str | None,
    tenant: str | None,
    topic: str | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    *,
    again: bool,
) -> AsyncIterator[list[Place]]:
    conditions = any((code, tenant, topic, since, until))
    if bool(letters) + bool(from_file) + conditions != 1:
        reason = "name letters, or give --from-file, or conditions such as --code: one of the three"
        raise InvalidInputError([Fault("nothing_chosen" if not conditions else "ambiguous_choice", reason)])
    if conditions:
        wanted = _filter(code, tenant, topic, since, until, "all" if again else "open")
        async for places in desk.places(wanted, limit):
            yield places
        return
    names = letters or [line for line in _read(from_file).decode().splitlines() if line.strip()]  # type: ignore[arg-type]
    yield [parse_place(name) for name in names][:limit]


def _filter(
    code: str | None, tenant: str | None, topic: str | None, since: str | None, until: str | None, state: str
) -> LetterFilter:
    wanted = LetterFilter(topic, code, tenant, _instant(since, "--since"), _instant(until, "--until"), None)
    return wanted if state == "all" else replace(wanted, state=state)  # type: ignore[arg-type]


def _instant(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError([Fault("invalid_time", f"expected ISO 8601, got {text[:80]!r}", option)]) from None
    return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1_000)


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InvalidInputError([Fault("unreadable_file", str(error), str(path))]) from None


def _with_desk(work: Callable[[DeadLetterDesk], Awaitable[T]]) -> T:
    settings = load_settings()
    configure_logs(settings, "deadletters")

    async def run() -> T:
        async with open_desk(settings) as desk:
            return await work(desk)

    return asyncio.run(run())


def _exit(results: list[Replayed] | list[Discarded]) -> None:
    if any(result.outcome in ("refused", "failed") for result in results):
        raise typer.Exit(1)
