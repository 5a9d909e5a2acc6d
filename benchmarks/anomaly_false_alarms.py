"""How often anomaly alerts ring on real usage, and what they find of what is planted.

Run by `python -m benchmarks.anomaly_false_alarms`.

Reads the reference traces beside the checkout, judges every window as the worker does, and counts each alert on the
untouched trace as a false alarm, though some are true stops of a service. Then it plants jumps, drops and silences at
random places (the seed is printed) into copies and counts how many are alerted while they last.

The traces are short, so windows are: ten minutes, an hour, a minute stand for the worker's hour, and fewer than its
three days are asked for before judging. `made` is not real: four weeks of hours by a negative binomial with office
hours and weekends, the only one long enough for references by the hour of the day and of the week.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import accumulate
from pathlib import Path

from alerts.domain.anomaly import Anomaly, Tally, judge
from alerts.domain.episodes import Episode, follow
from core.period import Period

TRACES = Path(__file__).resolve().parents[2] / "shared" / "data"
SEED = 20_261_121
_LOG_LINE = re.compile(r'(\S+) \S+ \S+ \[(\d+)/May/2015:(\d\d):\d\d:\d\d \+0000\] "\S+ /([^/?" ]*)[^"]*" \d+ (\d+|-)')
_START = datetime(2026, 1, 5, tzinfo=UTC)
PLANTS: tuple[tuple[str, float, int], ...] = (
    ("x3", 3, 6), ("x5", 5, 6), ("x10", 10, 6), ("x30", 30, 6), ("/10", 0.1, 6), ("silence", 0, 12),
)  # fmt: skip
Series = dict[tuple[str, str], list[Tally]]


@dataclass(frozen=True)
class Trace:
    """Usage by (who, meter) and window; `days_min` is from how many days of `per_day` windows on it is judged."""

    name: str
    series: Series
    per_day: int
    days_min: float


@dataclass(frozen=True)
class Alarm:
    """An alert that the worker would have sent, at the index of its window."""

    key: tuple[str, str]
    index: int
    anomaly: Anomaly


@dataclass(frozen=True)
class Measured:
    """What came out: alarms on the untouched trace, windows judged, and found of planted by name of the plant."""

    trace: Trace
    alarms: list[Alarm]
    windows: int
    found: dict[str, tuple[int, int]]

    @property
    def alarms_per_series_day(self) -> float:
        """Alarms per series and 24 windows: a day of the worker's hours."""
        return len(self.alarms) / (self.windows / 24) if self.windows else 0.0


def measure(trace: Trace, *, plants: int, seed: int = SEED) -> Measured:
    """Judge a trace as it is and with `plants` planted changes of each kind."""
    alarms: list[Alarm] = []
    windows = 0
    for key, tallies in trace.series.items():
        first = _first_judged(tallies, trace)
        windows += max(0, len(tallies) - first)
        alarms += [Alarm(key, index, anomaly) for index, anomaly in alarms_of(tallies, trace, first)]
    randomness = random.Random(seed)
    found = {name: _plant(trace, factor, length, plants, randomness) for name, factor, length in PLANTS if plants}
    return Measured(trace, alarms, windows, found)


def alarms_of(tallies: Sequence[Tally], trace: Trace, first: int) -> Iterator[tuple[int, Anomaly]]:
    """Yield what the worker would alert of a series, once per episode."""
    going_on: dict[str, Episode] = {}
    for index in range(first, len(tallies)):
        window = Period(_START + timedelta(hours=index), _START + timedelta(hours=index + 1))
        anomaly = _judge_at(tallies, index, trace)
        followed = follow(list(going_on.values()), anomaly, heard=tallies[index].events > 0, window=window)
        for episode in followed.changed:
            going_on[episode.kind] = episode
        going_on = {kind: episode for kind, episode in going_on.items() if episode.ended_at is None}
        if followed.begun is not None and anomaly is not None:
            yield index, anomaly


def _judge_at(tallies: Sequence[Tally], index: int, trace: Trace) -> Anomaly | None:
    return judge(tallies[:index], tallies[index], windows_per_day=trace.per_day, days_min=trace.days_min)


def _first_judged(tallies: Sequence[Tally], trace: Trace) -> int:
    first = next((i for i, tally in enumerate(tallies) if tally.events), len(tallies))
    return min(len(tallies), first + math.ceil(trace.days_min * trace.per_day))


def _plant(trace: Trace, factor: float, length: int, plants: int, randomness: random.Random) -> tuple[int, int]:
    """Plant where a series is in steady use (nine windows of ten), ten events a window; returns found, planted."""
    places = [
        (tallies, start)
        for tallies in trace.series.values()
        for start in _steady_starts(tallies, _first_judged(tallies, trace), length)
    ]
    chosen = randomness.sample(places, min(plants, len(places)))
    kind = "silence" if factor == 0 else "jump" if factor > 1 else "drop"
    found = 0
    for tallies, start in chosen:
        changed = list(tallies)
        for i in range(start, start + length):
            changed[i] = Tally(tallies[i].quantity * factor, int(tallies[i].events * factor))
        verdicts = (_judge_at(changed, i, trace) for i in range(start, start + length))
        found += any(verdict is not None and verdict.kind == kind for verdict in verdicts)
    return found, len(chosen)


def _steady_starts(tallies: Sequence[Tally], begin: int, length: int) -> Iterator[int]:
    first = next((i for i, tally in enumerate(tallies) if tally.events), len(tallies))
    used = list(accumulate((tally.events > 0 for tally in tallies), initial=0))
    for start in range(begin, len(tallies) - length + 1):
        is_steady = used[start] >= 0.9 * (start - first)
        if is_steady and all(tally.events >= 10 for tally in tallies[start : start + length]):
            yield start


def read_llm_clients(folder: Path) -> Trace:
    """73 clients of an LLM service, a day by ten minutes, requests and tokens: many are batch jobs that come and go."""
    series: Series = {}
    with gzip.open(folder / "llm" / "servegen_deepseek_r1_10min.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            window = int(row["window_start_s"]) // 600
            for meter in ("requests", "input_tokens", "output_tokens"):
                tallies = series.setdefault((row["client_id"], meter), [Tally(0, 0)] * 144)
                tallies[window] = Tally(float(row[meter]), int(row["requests"]))
    return Trace("LLM clients, 10 min", series, per_day=144, days_min=0.5)


def read_web_log(folder: Path) -> Trace:
    """Four days of a web server by hour: the whole, by path, by client, and dealt to seven tenants."""
    series: Series = {}

    def add(who: str, meter: str, hour: int, quantity: float) -> None:
        tallies = series.setdefault((who, meter), [Tally(0, 0)] * 84)
        tallies[hour] = Tally(tallies[hour].quantity + quantity, tallies[hour].events + 1)

    with gzip.open(folder / "weblog" / "apache_access_2015-05.log.gz", "rt") as file:
        for line in file:
            if (found := _LOG_LINE.match(line)) is None:
                continue
            client, day, hour, path, size = found.groups()
            index = (int(day) - 17) * 24 + int(hour) - 10
            add("all", "requests", index, 1)
            add("all", "bytes", index, 0 if size == "-" else int(size))
            for who in (f"/{path}", client, f"t{int(sha256(client.encode()).hexdigest()[:8], 16) % 7}"):
                add(who, "requests", index, 1)
    often = {key: tallies for key, tallies in series.items() if sum(tally.events for tally in tallies) >= 20}
    return Trace("web log, hours", often, per_day=24, days_min=2)


def read_azure(folder: Path) -> Trace:
    """57 minutes of LLM calls by minute, dealt to seven tenants by row."""
    series: Series = {}
    with gzip.open(folder / "llm" / "azure_llm_2023_code.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    begin = datetime.fromisoformat(rows[0]["TIMESTAMP"][:26])
    for number, row in enumerate(rows):
        minute = (datetime.fromisoformat(row["TIMESTAMP"][:26]) - begin) // timedelta(minutes=1)
        used = {"requests": 1.0, "input": float(row["ContextTokens"]), "output": float(row["GeneratedTokens"])}
        for meter, quantity in used.items():
            tallies = series.setdefault((f"t{number % 7}", meter), [Tally(0, 0)] * 58)
            tallies[minute] = Tally(tallies[minute].quantity + quantity, tallies[minute].events + 1)
    return Trace("LLM calls, minutes", series, per_day=1_440, days_min=20 / 1_440)


def make_office_hours(seed: int = SEED, tenants: int = 40) -> Trace:
    """Made, not real: tenants of 5 to 5,000 events an hour at noon, dispersion 0.05; half only in the day."""
    randomness = random.Random(seed)
    series: Series = {}
    for number in range(tenants):
        peak, is_day_only = 5 * 10 ** (3 * number / (tenants - 1)), number % 2 == 0
        tallies = []
        for hour in range(28 * 24):
            weekday, clock = hour // 24 % 7, hour % 24
            level = max(0.0, math.sin(math.pi * (clock - 6) / 13)) if 6 <= clock <= 19 else 0.0
            mean = peak * (level if is_day_only else 0.2 + 0.8 * level) * (0.1 if weekday >= 5 else 1.0)
            if is_day_only and weekday >= 5:
                mean = 0.0
            events = _draw(mean, 0.05, randomness)
            tallies.append(Tally(float(events), events))
        series[(f"made-{number:02}", "requests")] = tallies
    return Trace("made, office hours", series, per_day=24, days_min=3)


def _draw(mean: float, dispersion: float, randomness: random.Random) -> int:
    """Draw a negative binomial count: a Poisson of which the mean is gamma distributed."""
    if mean <= 0:
        return 0
    level = randomness.gammavariate(1 / dispersion, mean * dispersion)
    if level > 500:
        return max(0, round(randomness.gauss(level, math.sqrt(level))))
    left, count = math.exp(-level), -1
    product = 1.0
    while product > left:
        product *= randomness.random()
        count += 1
    return count


READERS: tuple[Callable[[Path], Trace], ...] = (read_llm_clients, read_web_log, read_azure)


def report(measured: Measured) -> str:
    """Return one trace's rows of the table."""
    kinds = Counter(alarm.anomaly.kind for alarm in measured.alarms)
    told = ", ".join(f"{kinds[kind]} {kind}" for kind in ("jump", "drop", "silence") if kinds[kind]) or "none"
    share = 100 * len(measured.alarms) / measured.windows
    found = "  ".join(f"{name} {hit}/{planted}" for name, (hit, planted) in measured.found.items())
    who = len({alarm.key[0] for alarm in measured.alarms})
    return (
        f"{measured.trace.name}: {len(measured.trace.series)} series, {measured.windows:,} windows judged\n"
        f"  alarms   {len(measured.alarms)} ({told}) of {who} tenants: {share:.2f} % of windows,"
        f" {measured.alarms_per_series_day:.3f} per series and 24 windows\n"
        f"  planted  {found}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=TRACES, help="folder of the reference traces")
    parser.add_argument("--plants", type=int, default=200, help="how many changes of each kind are planted per trace")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--show", action="store_true", help="print every alarm on the untouched traces")
    asked = parser.parse_args()
    print(f"seed {asked.seed}")
    for trace in (*(read(asked.data) for read in READERS), make_office_hours(asked.seed)):
        measured = measure(trace, plants=asked.plants, seed=asked.seed)
        print(report(measured))
        for alarm in measured.alarms if asked.show else ():
            around = trace.series[alarm.key][max(0, alarm.index - 8) : alarm.index + 3]
            print(f"    {alarm.key} {alarm.index} {alarm.anomaly.kind} {[int(tally.quantity) for tally in around]}")


if __name__ == "__main__":
    main()
