"""What a run has shown: medians, spread, ratios, the machine it ran on; as a table for people and JSON for programs."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import Measurement
from runtime.stack import jars

_LIBRARIES = ("faust-streaming", "aiokafka", "msgspec")
_CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Summary:
    """One contender over all rounds: median rate in events/s, its smallest and largest, processor microseconds each."""

    rate: float
    slowest: float
    fastest: float
    cpu_us: float

    @classmethod
    def of(cls, runs: Sequence[Measurement]) -> Summary:
        """Summarise at least one run."""
        rates = [run.rate for run in runs]
        cpu = statistics.median(run.cpu_seconds / run.events * 1_000_000 for run in runs)
        return cls(statistics.median(rates), min(rates), max(rates), cpu)


@dataclass(frozen=True, slots=True)
class Target:
    """What the architecture asks for: contender `name` at least `times` as fast as contender `beside`."""

    name: str
    times: float
    beside: str


@dataclass(frozen=True, slots=True)
class Report:
    """All runs by contender, in the order they are shown, and what they are judged by."""

    runs: Mapping[str, Sequence[Measurement]]
    targets: Sequence[Target]
    workload: Mapping[str, Any]
    machine: Mapping[str, Any]

    def ratio(self, name: str, beside: str) -> float:
        """Median over rounds of the ratio within a round: the two ran one after the other, under like conditions."""
        pairs = zip(self.runs[name], self.runs[beside], strict=True)
        return statistics.median(one.rate / other.rate for one, other in pairs)

    def as_dict(self) -> dict[str, Any]:
        """Return everything for programs."""
        summaries = {name: Summary.of(runs) for name, runs in self.runs.items()}
        return {
            "machine": dict(self.machine),
            "workload": dict(self.workload),
            "contenders": {
                name: {
                    "events_per_second": round(one.rate),
                    "slowest": round(one.slowest),
                    "fastest": round(one.fastest),
                    "cpu_us_per_event": round(one.cpu_us, 3),
                    "rounds": [
                        {"events": run.events, "seconds": run.seconds, "cpu_seconds": run.cpu_seconds}
                        for run in self.runs[name]
                    ],
                }
                for name, one in summaries.items()
            },
            "ratios": [
                {
                    "contender": target.name,
                    "beside": target.beside,
                    "ratio": round(self.ratio(target.name, target.beside), 3),
                    "target": target.times,
                    "reached": self.ratio(target.name, target.beside) >= target.times,
                }
                for target in self.targets
            ],
        }

    def print(self, console: Console, *, columns: Sequence[tuple[str, str]]) -> None:
        """Print the tables; `columns` are (title, contender) that every contender is compared with."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("contender", no_wrap=True)
        for title in ("events/s", "slowest", "fastest", "CPU µs", *(f"x {title}" for title, _ in columns)):
            table.add_column(title, justify="right")
        for name, runs in self.runs.items():
            one = Summary.of(runs)
            ratios = [_ratio_text(self.ratio(name, beside)) for _, beside in columns]
            numbers = [f"{number:,.0f}" for number in (one.rate, one.slowest, one.fastest)]
            table.add_row(name, *numbers, f"{one.cpu_us:.2f}", *ratios)
        console.print(table)
        console.print()
        goals = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("target (docs/architecture.md)", "asked", "seen", ""):
            left = title.startswith("target") or not title
            goals.add_column(title, justify="left" if left else "right", no_wrap=True)
        for target in self.targets:
            seen = self.ratio(target.name, target.beside)
            verdict = "[green]reached[/green]" if seen >= target.times else "[yellow]not reached[/yellow]"
            goals.add_row(f"{target.name} / {target.beside}", _ratio_text(target.times), _ratio_text(seen), verdict)
        console.print(goals)
        console.print()
        for group in (self.workload, self.machine):
            console.print(
                "  ".join(f"{name}: {value}" for name, value in group.items()), soft_wrap=True, highlight=False
            )


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, load before the run, versions, commit."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kafka": jars.KAFKA.rpartition(":")[2],
        **{name: version(name) for name in _LIBRARIES},
        "commit": _commit(),
    }


def _ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "core", "streams", "runtime", "benchmarks")
        return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
