"""From the message that caused an alert to what people read, for every kind."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from alerts.domain.alert import Alert, AlertKind
from alerts.domain.anomaly_alert import describe_anomaly
from alerts.domain.messages import SpendCrossed, UsageAnomaly
from alerts.domain.quota_alert import describe_crossing
from alerts.domain.spend_alert import describe_spend
from core.alert_rules import AlertRules
from core.errors import Fault, InvalidInputError
from core.messages import QuotaCrossed, decode_message

Cause = QuotaCrossed | SpendCrossed | UsageAnomaly


def decode_cause(kind: AlertKind, payload: bytes | None) -> Cause:
    """Read the message of an alert; raises `InvalidInputError` (`tombstone`, `malformed_message`)."""
    if kind == "quota":
        return decode_message(payload, QuotaCrossed)
    try:
        if kind == "spend":
            return msgspec.json.decode(payload or b"", type=SpendCrossed)
        return msgspec.json.decode(payload or b"", type=UsageAnomaly)
    except msgspec.MsgspecError as error:
        raise InvalidInputError([Fault("malformed_message", f"no {kind} alert: {error}")]) from None


def kind_of(cause: Cause) -> AlertKind:
    """Return the kind of alert a message causes."""
    match cause:
        case QuotaCrossed():
            return "quota"
        case SpendCrossed():
            return "spend"
    return "anomaly"


def describe(cause: Cause, rules: AlertRules) -> Alert:
    """Return the alert; `rules` say which threshold comes next. Raises `InvalidInputError` for false figures."""
    match cause:
        case QuotaCrossed():
            return describe_crossing(cause, rules.thresholds_of(cause.tenant_id, cause.meter))
        case SpendCrossed():
            mine = [rule for rule in rules.money_of(cause.tenant_id) if rule.scope == cause.scope]
            return describe_spend(
                cause, [rule.value for rule in mine if rule.value is not None and rule.currency == cause.currency]
            )
    return describe_anomaly(cause)


def channels_of(cause: Cause, rules: AlertRules) -> tuple[str, ...]:
    """Return the channels that the rules ask for; empty means every channel there is."""
    match cause:
        case QuotaCrossed():
            return rules.channels_of(cause.kind, cause.tenant_id, cause.meter, Decimal(cause.threshold))
        case SpendCrossed():
            name = cause.scope.partition(":")[2]
            return rules.channels_of("money", cause.tenant_id, name, Decimal(cause.threshold), cause.currency)
    return rules.channels_of("anomaly", cause.tenant_id, cause.meter, None)
