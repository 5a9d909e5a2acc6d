"""What people read when a quota is crossed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from alerts.domain.alert_mail import build_alert_mail
from alerts.domain.quota_alert import BAR_CELLS, describe_crossing
from alerts.domain.retry import REFUSALS_MAX, Answer, Attempt, plan_next
from alerts.domain.slack_message import build_slack_message
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


def crossed(**changes: object) -> QuotaCrossed:
    return msgspec.structs.replace(CROSSED, **changes)


def test_an_alert_says_who_what_how_much_and_what_comes_next() -> None:
    alert = describe_crossing(CROSSED, (80, 100))
    assert alert.headline == "acme has used 80 % of its api_requests limit"
    assert (alert.used, alert.limit, alert.remaining) == ("80,412.5", "100,000", "19,587.5")
    assert alert.percent == "80.4 %"
    assert alert.bar == "█" * 16 + "░" * 4
    assert alert.period == "October 2026"
    assert "next alert comes at 100 %" in alert.next_step


@pytest.mark.parametrize(
    ("unit", "shown"), [("vCPU-hour", "vCPU-hours"), ("GB", "GB"), ("GB-month", "GB-months"), ("", "")]
)
def test_units_are_words_or_symbols(unit: str, shown: str) -> None:
    assert describe_crossing(crossed(unit=unit), (80,)).unit == shown


def test_a_used_up_limit_says_so() -> None:
    alert = describe_crossing(crossed(percent=100, used="125000"), (80, 100))
    assert alert.headline == "acme has used up its api_requests limit"
    assert (alert.percent, alert.remaining, alert.bar) == ("125.0 %", "0", "█" * BAR_CELLS)
    assert "overage" in alert.next_step


def test_percent_is_cut_so_that_nearly_all_is_not_all() -> None:
    assert describe_crossing(crossed(used="99999.999"), (80,)).percent == "99.9 %"
    assert describe_crossing(crossed(used="1", limit="0"), (80,)).percent == "100.0 %"
    widest = describe_crossing(crossed(used="9" * 26, limit="0.000000000001"), (80,))
    assert widest.percent == "999,999.0 %"


@pytest.mark.parametrize(
    "changes", [{"used": "many"}, {"limit": "-1"}, {"used": "1e400"}, {"used": "NaN"}, {"period": "2026-13"}]
)
def test_figures_that_are_none_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        describe_crossing(crossed(**changes), (80,))


def test_the_slack_message_is_block_kit_with_a_bar_and_a_plain_text() -> None:
    message = build_slack_message(describe_crossing(CROSSED, (80, 100)))
    assert message["text"] == (
        "acme has used 80 % of its api_requests limit: 80,412.5 of 100,000 requests (80.4 %) in October 2026"
    )
    assert [block["type"] for block in message["blocks"]] == ["header", "section", "section", "section", "context"]
    shown = json.dumps(message["blocks"], ensure_ascii=False)
    for part in ("█" * 16, "80.4 %", "acme", "api_requests", "October 2026", "19,587.5 requests", CROSSED.alert_id):
        assert part in shown


def test_a_name_cannot_mention_a_channel_or_make_a_link() -> None:
    message = build_slack_message(describe_crossing(crossed(meter="<!channel> & <https://evil.invalid|x>"), (80,)))
    for block in message["blocks"][1:]:
        assert "<!channel>" not in json.dumps(block)
        assert "<https" not in json.dumps(block)
    assert message["blocks"][0]["text"]["type"] == "plain_text"


def test_the_mail_is_the_same_to_the_byte_however_often_it_is_built() -> None:
    alert = describe_crossing(CROSSED, (80, 100))

    def build() -> str:
        mail = build_alert_mail(
            alert, sender="Meterbook <a@meters.example>", recipients=("ops@acme.invalid",), dated=NOW
        )
        mail.set_boundary("fixed")
        return mail.as_string()

    assert build() == build()
    assert f"Message-ID: <{CROSSED.alert_id}@meters.example>" in build()


def test_the_mail_has_text_and_html_and_cannot_be_given_headers() -> None:
    alert = describe_crossing(crossed(meter="cpu\r\nBcc: everyone@evil.invalid", unit="<b>hour</b>"), (80, 100))
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


def test_pauses_grow_to_a_minute_and_never_end_while_the_receiver_is_down() -> None:
    down = Attempt(Answer.UNAVAILABLE, "no answer")
    pauses = [plan_next(down, attempts=n, now=NOW).next_attempt_at - NOW for n in range(1, 200)]
    assert pauses[:3] == [timedelta(seconds=0.5), timedelta(seconds=1), timedelta(seconds=2)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == timedelta(minutes=1)
    assert {plan_next(down, attempts=n, now=NOW).status for n in range(1, 10_000, 97)} == {"pending"}


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
