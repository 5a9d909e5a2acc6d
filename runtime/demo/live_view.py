"""The demo on a terminal: a live table while usage flows; plain lines where there is no terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runtime.demo.observe import Lag

_RATE_SAMPLES = 8
_PLAIN_EVERY = 8


@dataclass
class QuotaLine:
    """A tenant's usage of a meter beside its limit."""

    tenant: str
    meter: str
    used: Decimal
    limit: Decimal

    @property
    def percent(self) -> int:
        """Used share of the limit, in whole percent."""
        return int(self.used * 100 / self.limit)


@dataclass
class Picture:
    """What the view shows at one moment."""

    sent: int = 0
    to_send: int = 0
    by_api: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    lag: Lag = field(default_factory=Lag)
    quotas: list[QuotaLine] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)


class LiveView:
    """Shows pictures; on a terminal in place, elsewhere as a line every two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False) if console.is_terminal else None
        self._counted: deque[tuple[float, int]] = deque(maxlen=_RATE_SAMPLES)
        self._shown = 0
        self._alerts_told = 0

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def show(self, picture: Picture, at: float) -> None:
        """Show a picture taken at monotonic second `at`."""
        counted = sum(picture.outcomes.get(name, 0) for name in ("accepted", "duplicate", "rejected"))
        self._counted.append((at, counted))
        if self._live:
            self._live.update(self._panel(picture, counted))
            return
        self._shown += 1
        if self._shown % _PLAIN_EVERY == 1:
            self._line(
                f"  sent {picture.sent:>8,}  counted {counted:>8,}  {self._rate():>7,}/s  "
                f"behind: meter {picture.lag.meter:,} quota {picture.lag.quota:,} warehouse {picture.lag.warehouse:,}"
            )
        for alert in picture.alerts[self._alerts_told :]:
            self._line(f"  alert: {alert}")
        self._alerts_told = len(picture.alerts)

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _rate(self) -> int:
        if len(self._counted) < 2:
            return 0
        (began, first), (ended, last) = self._counted[0], self._counted[-1]
        return int((last - first) / max(0.001, ended - began))

    def _panel(self, picture: Picture, counted: int) -> Panel:
        flow = Table.grid(padding=(0, 3))
        flow.add_row(
            _figure("events sent", f"{picture.sent:,} of {picture.to_send:,}"),
            _figure("by the API", f"{picture.by_api:,}"),
            _figure("counted", f"{counted:,}"),
            _figure("per second", f"{self._rate():,}"),
        )
        flow.add_row(
            _figure("duplicates dropped", f"{picture.outcomes.get('duplicate', 0):,}"),
            _figure("dead letters", f"{picture.outcomes.get('rejected', 0):,}"),
            _figure("records behind", f"{picture.lag.meter:,}"),
            _figure("Redis / ClickHouse behind", f"{picture.lag.quota:,} / {picture.lag.warehouse:,}"),
        )
        parts: list[Table | Text] = [flow, Text("")]
        parts.append(_quota_table(picture.quotas))
        if picture.alerts:
            parts.append(Text(""))
            parts += [Text(f"  ▲ {alert}", style="yellow") for alert in picture.alerts]
        return Panel(Group(*parts), title="usage flowing", border_style="cyan", padding=(1, 2))


def _figure(name: str, value: str) -> Text:
    return Text.assemble((f"{value}\n", "bold"), (name, "dim"))


def _quota_table(quotas: Iterable[QuotaLine]) -> Table:
    table = Table.grid(padding=(0, 2))
    for quota in quotas:
        percent = quota.percent
        style = "red" if percent >= 100 else "yellow" if percent >= 80 else "green"
        bar = ProgressBar(total=100, completed=min(100, percent), width=32, complete_style=style, finished_style=style)
        table.add_row(
            quota.tenant,
            quota.meter,
            bar,
            Text(f"{percent} %", style=style, justify="right"),
            Text(f"{quota.used:,.0f} of {quota.limit:,.0f}", style="dim"),
        )
    return table
