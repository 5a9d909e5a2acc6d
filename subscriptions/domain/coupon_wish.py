"""Coupons and credits as people ask for them: documents in, checked terms or all faults out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from core.errors import Fault, InvalidInputError
from core.ids import TENANT_PATTERN
from core.money import MINOR_UNITS, round_to_minor
from rating.domain.coupon import PRIORITY_DEFAULT, Coupon, Duration
from rating.domain.credit import CreditGrant, CreditKind
from rating.domain.credit_postings import RESERVED_REASONS
from rating.domain.fields import Fields

PRIORITY_MAX = 255
PERIODS_MAX = 120
REDEMPTIONS_MAX = 1_000_000_000
REASON_MAX = 500


def read_coupon(coupon_id: str, document: Mapping[str, Any], now: datetime) -> Coupon:
    """Return version 1 of the coupon a document describes; raises `InvalidInputError` with every fault and its path.

    Stripe's names where Stripe has the notion: `name`, `percent_off` or `amount_off` with `currency`, `duration` (once,
    repeating, forever) with `duration_in_periods`, `max_redemptions`; ours: `max_per_tenant`, `valid_from` (now if not
    given), `valid_until`, `automatic`, `plans`, `meters`, `charges`, `minimum_amount`, `priority`, `exclusive`.
    """
    faults: list[Fault] = []
    fields = Fields(dict(document), "", faults)
    if not TENANT_PATTERN.fullmatch(coupon_id):
        reason = "a coupon's id is up to 64 letters, digits, . _ -, and starts with a letter or digit"
        faults.append(Fault("invalid_coupon_id", reason, "coupon_id"))
    currency = _currency(fields)
    duration = Duration(
        fields.choice("duration", [each.value for each in Duration], "invalid_duration", "once") or "once"
    )
    automatic = fields.flag("automatic")
    coupon = Coupon(
        coupon_id=coupon_id,
        name=fields.text("name", coupon_id or None),
        valid_from=_instant(fields, "valid_from") or now,
        percent_off=_percent(fields),
        amount_off=_money(fields, "amount_off", currency) if fields.has("amount_off") else None,
        currency=currency,
        duration=duration,
        periods=_periods(fields, duration),
        valid_until=_instant(fields, "valid_until"),
        max_redemptions=_count(fields, "max_redemptions", REDEMPTIONS_MAX),
        max_per_tenant=_count(fields, "max_per_tenant", REDEMPTIONS_MAX),
        automatic=automatic,
        plans=_names(fields, "plans"),
        meters=_names(fields, "meters"),
        charges=_names(fields, "charges"),
        minimum_amount=_money(fields, "minimum_amount", currency) if fields.has("minimum_amount") else None,
        priority=_priority(fields),
        exclusive=fields.flag("exclusive"),
    )
    _check_coupon(coupon, fields, now)
    fields.finish()
    if faults:
        raise InvalidInputError(faults)
    return coupon


def read_credit(
    grant_id: str, tenant_id: str, document: Mapping[str, Any], *, currency: str, now: datetime
) -> CreditGrant:
    """Return the grant a document describes; raises `InvalidInputError` with every fault and its path.

    `currency` is the tenant's. Fields: `amount`, `kind` (paid, promotional), `currency` (must be the tenant's),
    `priority`, `effective_at` (now if not given), `expires_at`, `plans`, `meters`, `reason`.
    """
    faults: list[Fault] = []
    fields = Fields(dict(document), "", faults)
    given = fields.choice("currency", MINOR_UNITS, "unknown_currency", currency)
    if given and given != currency:
        fields.fault("currency", "currency_mismatch", f"the tenant pays in {currency}, this is in {given}")
    kind = fields.choice("kind", [each.value for each in CreditKind], "invalid_kind", "paid") or "paid"
    effective_at, expires_at = _instant(fields, "effective_at") or now, _instant(fields, "expires_at")
    if expires_at is not None and expires_at <= max(effective_at, now):
        fields.fault("expires_at", "invalid_expiry", "it would expire before it could be drawn")
    reason = fields.raw("reason") or ""
    if not isinstance(reason, str) or len(reason) > REASON_MAX or not (reason.isprintable()):
        fields.fault("reason", "invalid_text", f"expected up to {REASON_MAX} printable characters")
        reason = ""
    if reason in RESERVED_REASONS:
        fields.fault("reason", "reserved_reason", "only the books give this reason: it says where the money came from")
    grant = CreditGrant(
        grant_id=grant_id,
        tenant_id=tenant_id,
        kind=CreditKind(kind),
        amount=_money(fields, "amount", currency),
        currency=currency,
        effective_at=effective_at,
        granted_at=now,
        expires_at=expires_at,
        priority=_priority(fields),
        plans=_names(fields, "plans"),
        meters=_names(fields, "meters"),
        reason=reason,
    )
    fields.finish()
    if faults:
        raise InvalidInputError(faults)
    return grant


def read_money(value: object, currency: str, path: str) -> Decimal:
    """Return an amount above zero in whole minor units; raises `InvalidInputError`."""
    faults: list[Fault] = []
    amount = _money(Fields({path: value}, "", faults), path, currency)
    if faults:
        raise InvalidInputError(faults)
    return amount


def read_instant(text: str, path: str) -> datetime:
    """Return an instant from ISO 8601, UTC where it names no zone; raises `InvalidInputError` (`invalid_time`)."""
    faults: list[Fault] = []
    instant = _instant(Fields({path: text}, "", faults), path)
    if instant is None:
        raise InvalidInputError(faults)
    return instant


def _check_coupon(coupon: Coupon, fields: Fields, now: datetime) -> None:
    if (coupon.percent_off is None) == (coupon.amount_off is None):
        fields.fault("percent_off", "contradiction", "expected either percent_off or amount_off")
    needs_currency = coupon.amount_off is not None or coupon.minimum_amount is not None
    if needs_currency and coupon.currency is None and not fields.has("currency"):
        fields.fault("currency", "missing_field", "an amount needs a currency")
    if not needs_currency and coupon.currency is not None:
        fields.fault("currency", "contradiction", "there is no amount that is in a currency")
    if coupon.valid_until is not None and coupon.valid_until <= max(coupon.valid_from, now):
        fields.fault("valid_until", "invalid_period", "it would end before it could be redeemed")
    if coupon.automatic and (coupon.max_redemptions is not None or coupon.max_per_tenant is not None):
        fields.fault("automatic", "contradiction", "an automatic coupon is redeemed by nobody, so nothing is counted")
    if coupon.automatic and coupon.valid_from < now:
        # It would lower what has been invoiced already.
        fields.fault("valid_from", "backdated", "an automatic coupon cannot begin before now")


def _currency(fields: Fields) -> str | None:
    if not fields.has("currency"):
        return None
    return fields.choice("currency", MINOR_UNITS, "unknown_currency") or None


def _percent(fields: Fields) -> Decimal | None:
    if not fields.has("percent_off"):
        return None
    faults_before = len(fields.faults)
    percent = fields.amount("percent_off")
    if len(fields.faults) == faults_before and not 0 < percent <= 100:
        fields.fault("percent_off", "invalid_percent", f"expected more than 0 and at most 100, got {percent:f}")
    return percent


def _money(fields: Fields, name: str, currency: str | None) -> Decimal:
    faults_before = len(fields.faults)
    amount = fields.amount(name)
    if len(fields.faults) > faults_before:
        return amount
    if amount == 0:
        fields.fault(name, "amount_not_positive", "expected more than 0")
    elif currency is not None and amount != round_to_minor(amount, currency):
        fields.fault(name, "too_many_digits", f"{amount:f} has a fraction of {currency}'s smallest unit")
    return amount if currency is None else round_to_minor(amount, currency)


def _periods(fields: Fields, duration: Duration) -> int | None:
    given = _count(fields, "duration_in_periods", PERIODS_MAX)
    if duration is Duration.REPEATING and not fields.has("duration_in_periods"):
        fields.fault("duration_in_periods", "missing_field", "a repeating coupon needs the number of billing periods")
    if duration is not Duration.REPEATING and fields.has("duration_in_periods"):
        fields.fault("duration_in_periods", "contradiction", f"a coupon for {duration.value} has no number of periods")
    return given


def _count(fields: Fields, name: str, most: int) -> int | None:
    if not fields.has(name):
        return None
    count = fields.whole(name, 1)
    if count > most:
        fields.fault(name, "invalid_number", f"expected at most {most}, got {count}")
    return count


def _priority(fields: Fields) -> int:
    value = fields.raw("priority") if fields.has("priority") else PRIORITY_DEFAULT
    if type(value) is not int or not 0 <= value <= PRIORITY_MAX:
        fields.fault("priority", "invalid_priority", f"expected a whole number from 0 to {PRIORITY_MAX}")
        return PRIORITY_DEFAULT
    return value


def _names(fields: Fields, name: str) -> frozenset[str]:
    names = set()
    for index, value in enumerate(fields.items(name)):
        if isinstance(value, str) and value and value.isprintable() and len(value) <= 200:
            names.add(value)
        else:
            fields.fault(f"{name}[{index}]", "invalid_name", "expected a name")
    return frozenset(names)


def _instant(fields: Fields, name: str) -> datetime | None:
    if not fields.has(name):
        return None
    value = fields.raw(name)
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        fields.fault(name, "invalid_time", f"expected 2026-10-01 or ISO 8601, got {str(value)[:60]!r}")
        return None
