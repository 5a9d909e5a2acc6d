"""Letters on a terminal. Owns that nothing in a letter can speak to the terminal: bodies are other people's bytes."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metering.dead_letters.discard_letters import Discarded
from metering.dead_letters.documents import instant_text
from metering.dead_letters.domain.letter import Action, FoundLetter, Letter, state_of
from metering.dead_letters.ports import CodeCount
from metering.dead_letters.replay_letters import Replayed

_HEX_ROW = 16


def print_letters(letters: Sequence[FoundLetter], console: Console) -> None:
    """Print one row a letter."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("letter", "put aside", "code", "tenant", "bytes", "state", "reason"):
        table.add_column(name, no_wrap=name != "reason", justify="right" if name == "bytes" else "left")
    for found in letters:
        head = found.head
        size = "-" if head.size is None else f"{head.size}{' cut' if head.is_cut else ''}"
        row = (str(head.place), instant_text(head.at_ms), head.code, head.tenant or "-", size, found.state, head.reason)
        table.add_row(*(Text(plain(cell)) for cell in row))
    console.print(table)


def print_counts(counts: Sequence[CodeCount], console: Console) -> None:
    """Print one row a topic and code."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("topic", "code", "open", "letters"):
        table.add_column(name, justify="left" if name in ("topic", "code") else "right")
    for count in counts:
        table.add_row(count.topic, Text(plain(count.code)), f"{count.open:,}", f"{count.letters:,}")
    console.print(table)


def print_letter(letter: Letter, actions: Sequence[Action], console: Console) -> None:
    """Print everything about a letter, its body last."""
    rows = [
        ("letter", str(letter.place)),
        ("state", state_of(actions)),
        ("code", letter.code),
        ("reason", letter.reason),
        ("put aside", instant_text(letter.at_ms)),
        ("origin", f"{letter.origin}" + (f", event {letter.index} of the array" if letter.index >= 0 else "")),
        ("received", instant_text(letter.received_ms)),
        ("tenant", letter.tenant or "-"),
        ("key", "-" if letter.key is None else letter.key.decode(errors="backslashreplace")),
        *((f"header {name}", (raw or b"").decode(errors="backslashreplace")) for name, raw in letter.headers),
        ("sha256", letter.digest),
    ]
    for action in actions:
        done = f"done {action.done_at:%Y-%m-%d %H:%M:%S}Z" if action.done_at else "begun and never confirmed"
        to = f" to {action.sent}" if action.sent else ""
        mended = " (mended)" if action.sent_digest not in (None, action.letter_digest) else ""
        rows.append((action.kind, f"by {action.actor}, {done}{to}{mended} {action.reason}".rstrip()))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(Text(f"{name:<{width}}  ", style="dim") + Text(plain(value)), soft_wrap=True)
    console.print()
    if letter.body is None:
        console.print("no body: the record was a tombstone", style="dim")
        return
    cut = ", cut to fit: only its beginning is kept" if letter.is_cut else ""
    console.print(Text(f"body, {len(letter.body)} bytes{cut}", style="dim"))
    try:
        console.print(Text(plain(letter.body.decode(), keep="\n\t")), soft_wrap=True)
    except UnicodeDecodeError:
        for start in range(0, len(letter.body), _HEX_ROW):
            row = letter.body[start : start + _HEX_ROW]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            console.print(Text(f"{start:08x}  {row.hex(' '):<{3 * _HEX_ROW}} {text}"), soft_wrap=True)


def print_results(results: Sequence[Replayed | Discarded], console: Console) -> None:
    """Print one row a letter, and how many fared how."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("letter", "outcome", "code", "detail"):
        table.add_column(name, no_wrap=name == "letter")
    for result in results:
        sent = result.sent if isinstance(result, Replayed) else None
        detail = f"to {sent}" if sent else result.reason
        table.add_row(*(Text(plain(cell)) for cell in (str(result.place), result.outcome, result.code, detail)))
    console.print(table)


def plain(text: str, keep: str = "") -> str:
    """Return the text with everything that is not printable written out (an escape as `\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )
