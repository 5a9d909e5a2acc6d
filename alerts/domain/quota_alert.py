"""What an alert about a crossed quota says. Owns its words and figures; Slack and e-mail lay them out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from core.errors import Fault, InvalidInputError
from core.messages import QuotaCrossed
from core.period import parse_month

BAR_CELLS = 20
# As wide as Decimal(38, 12), the widest quantity there is.
_QUANTITY = re.compile(r"\d{1,26}(\.\d{1,12})?", re.ASCII)
_PERCENT_MAX = Decimal(999_999)
_NAME_LENGTH_MAX = 80
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class QuotaAlert:
    """A crossed quota, ready to be shown: names without control characters, figures with thousands separated."""

    alert_id: str
    tenant: str
    meter: str
    unit: str
    period: str
    threshold_percent: int
    used: str
    limit: str
    remaining: str
    percent: str
    bar: str
    next_step: str
    crossed_at: str

    @property
    def is_exhausted(self) -> bool:
        """Whether the whole limit is used."""
        return self.threshold_percent >= 100

    @property
    def headline(self) -> str:
        """One line that says it all."""
        if self.is_exhausted:
            return f"{self.tenant} has used up its {self.meter} limit"
        return f"{self.tenant} has used {self.threshold_percent} % of its {self.meter} limit"


def describe_crossing(message: QuotaCrossed, thresholds_percent: tuple[int, ...]) -> QuotaAlert:
    """Turn a message into what people read; raises `InvalidInputError` (`invalid_quantity`, `invalid_period`)."""
    used, limit = _quantity(message.used, "used"), _quantity(message.limit, "limit")
    period = parse_month(message.period)
    # A limit of zero is crossed by the first unit.
    percent = min(used * 100 / limit, _PERCENT_MAX) if limit else Decimal(100)
    return QuotaAlert(
        alert_id=message.alert_id,
        tenant=_clean(message.tenant_id),
        meter=_clean(message.meter),
        unit=_plural(_clean(message.unit)),
        period=f"{_MONTHS[period.start.month - 1]} {period.start.year}",
        threshold_percent=message.percent,
        used=_figure(used),
        limit=_figure(limit),
        remaining=_figure(max(limit - used, Decimal(0))),
        # Cut, not rounded: 99.96 % is not yet 100 %.
        percent=f"{percent.quantize(Decimal('0.1'), rounding=ROUND_DOWN):,f} %",
        bar=_bar(percent),
        next_step=_next_step(message.percent, thresholds_percent),
        crossed_at=_clean(message.crossed_at),
    )


def _quantity(text: str, name: str) -> Decimal:
    if not _QUANTITY.fullmatch(text):
        raise InvalidInputError([Fault("invalid_quantity", f"expected a decimal text, got {text[:40]!r}", name)])
    return Decimal(text)


def _clean(text: str) -> str:
    """Return the text without what could break a header or a line."""
    return "".join(char for char in text if char.isprintable())[:_NAME_LENGTH_MAX]


def _plural(unit: str) -> str:
    """Return "requests" for "request"; symbols such as GB stay as they are."""
    return f"{unit}s" if unit[-1:].islower() and not unit.endswith(("s", "each")) else unit


def _figure(value: Decimal) -> str:
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _bar(percent: Decimal) -> str:
    filled = min(BAR_CELLS, int(percent * BAR_CELLS / 100))
    return "█" * filled + "░" * (BAR_CELLS - filled)


def _next_step(percent: int, thresholds: tuple[int, ...]) -> str:
    if percent >= 100:
        return (
            "From here on the plan decides: further usage is billed at its overage price, "
            "or refused where the limit is hard. A higher limit or the next period re-arms this alert."
        )
    later = next((threshold for threshold in sorted(thresholds) if threshold > percent), None)
    if later is None:
        return "Nothing is blocked yet. No further alert is set up for this limit in this period."
    return (
        f"Nothing is blocked yet. The next alert comes at {later} %; raise the limit or upgrade the plan before that."
    )
