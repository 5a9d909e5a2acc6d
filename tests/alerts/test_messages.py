"""What people read when a quota is crossed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from alerts.domain.alert import Alert
from alerts.domain.alert_mail import build_alert_mail
from alerts.domain.anomaly_alert import describe_anomaly
from alerts.domain.describe import decode_cause, describe
from alerts.domain.messages import SpendCrossed, UsageAnomaly
from alerts.domain.retry import REFUSALS_MAX, TRIES_MAX, Answer, Attempt, plan_next
from alerts.domain.slack_message import build_slack_message
from alerts.domain.wording import BAR_CELLS, about, amount
from core.alert_rules import AlertRule, AlertRules
from core.errors import InvalidInputError
from core.messages import QuotaCrossed

NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)
CROSSED = QuotaCrossed(
    tenant_id="acme",
    meter="api_requests",
    unit="request",
    period="2026-10",
    percent=80,
    used="80412.5",
    limit="100000",
    crossed_at="2026-10-20T11:59:58Z",
)


DEFAULTS = AlertRules.of((), (80, 100))
SPENT = SpendCrossed(
    tenant_id="acme",
    scope="total",
    period="2026-10",
    currency="USD",
    threshold="100",
    amount="104.2",
    crossed_at="2026-10-20T11:59:58Z",
)
JUMPED = UsageAnomaly(
    tenant_id="acme",
    meter="api_requests",
    unit="request",
    kind="jump",
    started_at="2026-10-20T14:00:00Z",
    window_start="2026-10-20T14:00:00Z",
    window_end="2026-10-20T15:00:00Z",
    quantity="412000",
    usual="38123",
    spread="6012.3",
    compared=14,
    compared_with="day",
    history_days=14,
    longest_gap_hours=0,
    found_at="2026-10-20T16:00:03Z",
)


def crossed(**changes: object) -> QuotaCrossed:
    return msgspec.structs.replace(CROSSED, **changes)


def told(message: QuotaCrossed) -> Alert:
    return describe(message, DEFAULTS)


def test_an_alert_says_who_what_how_much_and_what_comes_next() -> None:
    alert = told(CROSSED)
    assert alert.headline == "acme has used 80 % of its api_requests limit"
    assert alert.summary == "80,412.5 of 100,000 requests (80.4 %) in October 2026"
    assert dict(alert.rows)["Remaining"] == "19,587.5 requests"
    assert alert.gauge is not None
    assert (alert.gauge.percent, alert.gauge.bar) == ("80.4 %", "█" * 16 + "░" * 4)
    assert "next alert comes at 100 %" in alert.explanation
    assert not alert.is_severe


@pytest.mark.parametrize(
    ("unit", "shown"), [("vCPU-hour", "vCPU-hours"), ("GB", "GB"), ("GB-month", "GB-months"), ("", "")]
)
def test_units_are_words_or_symbols(unit: str, shown: str) -> None:
    assert dict(told(crossed(unit=unit)).rows)["Remaining"] == f"19,587.5 {shown}"


def test_a_used_up_limit_says_so() -> None:
    alert = told(crossed(percent=100, used="125000"))
    assert alert.headline == "acme has used up its api_requests limit"
    assert alert.gauge is not None
    assert (alert.gauge.percent, alert.gauge.bar) == ("125.0 %", "█" * BAR_CELLS)
    assert dict(alert.rows)["Remaining"] == "0 requests"
    assert "overage" in alert.explanation
    assert alert.is_severe


def test_a_threshold_above_the_limit_is_called_what_it_is() -> None:
    alert = told(crossed(percent=120, used="125000"))
    assert alert.headline == "acme has used 120 % of its api_requests limit"
    assert alert.is_severe


def test_units_are_told_with_the_limit_and_without_one() -> None:
    beside = told(crossed(kind="units", value="75000", percent=0))
    assert beside.headline == "acme has reached 75,000 requests of api_requests"
    assert beside.summary == "80,412.5 of 100,000 requests (80.4 %) in October 2026"
    assert "next alert comes at 80 %" in beside.explanation
    alone = told(crossed(kind="units", value="75000", percent=0, limit="", period="2026-10-15"))
    assert alone.gauge is None
    assert alone.summary == "80,412.5 requests in the billing period from 15 October 2026"
    assert "there is no limit" in alone.explanation
    assert "Remaining" not in dict(alone.rows)


def test_percent_is_cut_so_that_nearly_all_is_not_all() -> None:
    def percent(**changes: str) -> str:
        gauge = told(crossed(**changes)).gauge
        assert gauge is not None
        return gauge.percent

    assert percent(used="99999.999") == "99.9 %"
    assert percent(used="1", limit="0") == "100.0 %"
    assert percent(used="9" * 26, limit="0.000000000001") == "999,999.0 %"


@pytest.mark.parametrize(
    "changes",
    [
        {"used": "many"}, {"limit": "-1"}, {"used": "1e400"}, {"used": "NaN"}, {"period": "2026-13"},
        {"period": "2026-02-30"}, {"value": "many"}, {"period": "October"},
    ],
)  # fmt: skip
def test_figures_that_are_none_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        told(crossed(**changes))


def test_the_slack_message_is_block_kit_with_a_bar_and_a_plain_text() -> None:
    message = build_slack_message(told(CROSSED))
    assert message["text"] == (
        "acme has used 80 % of its api_requests limit: 80,412.5 of 100,000 requests (80.4 %) in October 2026"
    )
    assert [block["type"] for block in message["blocks"]] == ["header", "section", "section", "section", "context"]
    shown = json.dumps(message["blocks"], ensure_ascii=False)
    for part in ("█" * 16, "80.4 %", "acme", "api_requests", "October 2026", "19,587.5 requests", CROSSED.alert_id):
        assert part in shown


def test_a_name_cannot_mention_a_channel_or_make_a_link() -> None:
    message = build_slack_message(told(crossed(meter="<!channel> & <https://evil.invalid|x>")))
    for block in message["blocks"][1:]:
        assert "<!channel>" not in json.dumps(block)
        assert "<https" not in json.dumps(block)
    assert message["blocks"][0]["text"]["type"] == "plain_text"


def test_the_mail_is_the_same_to_the_byte_however_often_it_is_built() -> None:
    alert = told(CROSSED)

    def build() -> str:
        mail = build_alert_mail(
            alert, sender="Meterbook <a@meters.example>", recipients=("ops@acme.invalid",), dated=NOW
        )
        mail.set_boundary("fixed")
        return mail.as_string()

    assert build() == build()
    assert f"Message-ID: <{CROSSED.alert_id}@meters.example>" in build()


def test_the_mail_has_text_and_html_and_cannot_be_given_headers() -> None:
    alert = told(crossed(meter="cpu\r\nBcc: everyone@evil.invalid", unit="<b>hour</b>"))
    mail = build_alert_mail(
        alert, sender="a@meters.example", recipients=("x@acme.invalid", "y@acme.invalid"), dated=NOW
    )
    assert mail["Bcc"] is None
    assert mail["To"] == "x@acme.invalid, y@acme.invalid"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert "80,412.5 of 100,000" in plain.get_content()
    assert "width:80%" in html.get_content()
    assert "<b>hour</b>" not in html.get_content()


def test_pauses_grow_to_a_minute_and_last_for_a_week_while_the_receiver_is_down() -> None:
    down = Attempt(Answer.UNAVAILABLE, "no answer")
    pauses = [plan_next(down, attempts=n, now=NOW).next_attempt_at - NOW for n in range(1, 200)]
    assert pauses[:3] == [timedelta(seconds=0.5), timedelta(seconds=1), timedelta(seconds=2)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == timedelta(minutes=1)
    assert {plan_next(down, attempts=n, now=NOW).status for n in range(1, 10_000, 97)} == {"pending"}
    assert plan_next(down, attempts=TRIES_MAX, now=NOW).status == "refused"


def test_retry_after_is_respected_up_to_an_hour() -> None:
    def pause(seconds: int) -> timedelta:
        asked = Attempt(Answer.UNAVAILABLE, "429", timedelta(seconds=seconds))
        return plan_next(asked, attempts=1, now=NOW).next_attempt_at - NOW

    assert (pause(30), pause(0), pause(10**6)) == (
        timedelta(seconds=30), timedelta(seconds=0.5), timedelta(hours=1)
    )  # fmt: skip


def test_a_receiver_that_says_no_is_given_up_after_a_while() -> None:
    refused = Attempt(Answer.REFUSED, "404 no_service")
    plans = [plan_next(refused, attempts=n, now=NOW).status for n in range(1, REFUSALS_MAX + 1)]
    assert plans == ["pending"] * (REFUSALS_MAX - 1) + ["refused"]
    assert plan_next(Attempt(Answer.SENT), attempts=1, now=NOW).status == "sent"


# Money


def test_money_is_told_with_its_currency_and_the_next_threshold() -> None:
    rules = AlertRules.of(
        [AlertRule(f"m{n}", "money", Decimal(n), currency="USD") for n in (100, 250, 1_000)]
        + [AlertRule("eur", "money", Decimal(120), currency="EUR")],
        (),
    )
    alert = describe(SPENT, rules)
    assert alert.one_line == "acme's running cost has reached 100.00 USD: 104.20 USD so far in October 2026"
    assert "The next alert comes at 250.00 USD." in alert.explanation
    meter = describe(msgspec.structs.replace(SPENT, scope="meter:llm_input_tokens"), rules)
    assert meter.headline == "acme's running cost for llm_input_tokens has reached 100.00 USD"
    assert meter.meter == "llm_input_tokens"
    charge = describe(msgspec.structs.replace(SPENT, scope="charge:base"), rules)
    assert charge.headline == "acme's running cost for the charge base has reached 100.00 USD"


@pytest.mark.parametrize(
    ("value", "currency", "shown"),
    [
        ("1250", "USD", "1,250.00 USD"),
        ("0.5", "JPY", "0.5 JPY"),
        ("1e3", "JPY", "1,000 JPY"),
        ("1.005", "EUR", "1.005 EUR"),
    ],
)
def test_amounts_have_their_minor_units_and_lose_nothing(value: str, currency: str, shown: str) -> None:
    assert amount(Decimal(value), currency) == shown


def test_a_rearmed_crossing_is_another_alert_and_a_repeated_one_is_not() -> None:
    again = msgspec.structs.replace(SPENT, arming=1)
    later = msgspec.structs.replace(SPENT, amount="110", crossed_at="2026-10-21T00:00:00Z")
    assert len({SPENT.alert_id, again.alert_id}) == 2
    assert later.alert_id == SPENT.alert_id


# Anomalies


def test_a_jump_says_what_was_seen_what_is_usual_and_since_when() -> None:
    alert = describe_anomaly(JUMPED)
    assert alert.headline == "acme's api_requests has jumped to 11 times the usual"
    assert alert.summary == (
        "412,000 requests between 14:00 and 15:00 UTC on 20 October 2026; "
        "usual at this hour over the last 14 days: 38,000 ± 6,000 requests"
    )
    assert "than this meter's own ups and downs of 14 days explain" in alert.explanation


def test_a_silence_says_since_when_and_how_long_pauses_were_before() -> None:
    silent = msgspec.structs.replace(
        JUMPED, kind="silence", window_end="2026-10-20T17:00:00Z", quantity="0", longest_gap_hours=2
    )
    alert = describe_anomaly(silent)
    assert alert.one_line == (
        "acme has stopped using api_requests: no api_requests for 3 h, since 20 October 2026, 14:00 UTC; "
        "usual at these hours over the last 14 days: 38,000 ± 6,000 requests"
    )
    assert "the longest pause before was 2 h" in alert.explanation
    assert alert.is_severe


def test_what_it_is_compared_with_is_told() -> None:
    week = describe_anomaly(
        msgspec.structs.replace(JUMPED, compared_with="week", compared=4, kind="drop", quantity="412")
    )
    assert "at this hour of the week over the last 4 weeks" in week.summary
    assert week.headline == "acme's api_requests has dropped to 1.1 % of the usual"
    before = describe_anomaly(
        msgspec.structs.replace(JUMPED, compared_with="before", compared=12, usual="0", spread="0")
    )
    assert "in the 12 hours before: 0 requests" in before.summary
    assert before.headline == "acme's api_requests has jumped"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("38123", "38,000"), ("0", "0"), ("0.012345", "0.012"), ("9.96", "10"), ("1234567", "1,200,000")],
)
def test_statistics_are_written_to_what_they_are_worth(value: str, shown: str) -> None:
    assert about(Decimal(value)) == shown


@pytest.mark.parametrize(
    "changes", [{"usual": "x"}, {"window_start": "yesterday"}, {"window_start": "2026-10-20T14:00:00"}]
)
def test_an_anomaly_without_figures_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        describe_anomaly(msgspec.structs.replace(JUMPED, **changes))


def test_what_was_claimed_can_be_read_back() -> None:
    assert decode_cause("spend", msgspec.json.encode(SPENT)) == SPENT
    assert decode_cause("anomaly", msgspec.json.encode(JUMPED)) == JUMPED
    with pytest.raises(InvalidInputError):
        decode_cause("spend", b"{}")
