"""The e-mail of an alert: text and simple HTML. Owns its Message-ID, made from the alert's id: sent twice it is one."""

from __future__ import annotations

from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from html import escape
from textwrap import fill

from alerts.domain.alert import Alert, Gauge

_RED, _AMBER = "#c62828", "#e09b00"
_TEXT_WIDTH = 76


def build_alert_mail(alert: Alert, *, sender: str, recipients: tuple[str, ...], dated: datetime) -> EmailMessage:
    """Return the message; `dated` is when the alert was claimed, so that a repeat is the same to the byte."""
    mail = EmailMessage()
    mail["Subject"] = alert.headline
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = format_datetime(dated)
    mail["Message-ID"] = f"<{alert.alert_id}@{parseaddr(sender)[1].rpartition('@')[2] or 'meterbook.invalid'}>"
    # RFC 3834: no out-of-office replies to a machine.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_text(alert))
    mail.add_alternative(_html(alert), subtype="html")
    return mail


def _text(alert: Alert) -> str:
    width = max(len(name) for name, _ in alert.rows) + 2
    rows = "\n".join(f"{name + ':':<{width}}{value}" for name, value in alert.rows)
    parts = [
        f"{alert.headline}.",
        f"{alert.gauge.bar} {alert.gauge.percent}" if alert.gauge is not None else "",
        _fill(f"{alert.summary[:1].upper()}{alert.summary[1:]}."),
        rows,
        f"{alert.explanation_title}\n{_fill(alert.explanation)}",
        f"-- \n{alert.happened}\n{alert.alert_id}\n",
    ]
    return "\n\n".join(part for part in parts if part)


def _fill(text: str) -> str:
    return fill(text, _TEXT_WIDTH, break_on_hyphens=False)


def _html(alert: Alert) -> str:
    rows = "".join(
        f'<tr><td style="color:#666;padding:2px 16px 2px 0;vertical-align:top">{escape(name)}</td>'
        f"<td>{escape(value)}</td></tr>"
        for name, value in alert.rows
    )
    return (
        '<!doctype html><html lang="en"><body style="font:15px/1.5 sans-serif;color:#222;max-width:560px">'
        f'<h2 style="font-size:18px">{escape(alert.headline)}</h2>'
        f"{_gauge_html(alert.gauge, is_severe=alert.is_severe) if alert.gauge is not None else ''}"
        f'<p style="margin:4px 0 16px">{escape(alert.summary)}</p>'
        f'<table style="border-collapse:collapse">{rows}</table>'
        f"<p><b>{escape(alert.explanation_title)}</b><br>{escape(alert.explanation)}</p>"
        f'<p style="color:#999;font-size:12px">{escape(alert.happened)}<br>{escape(alert.alert_id)}</p></body></html>\n'
    )


def _gauge_html(gauge: Gauge, *, is_severe: bool) -> str:
    width = len(gauge.bar.rstrip("░")) * 100 // len(gauge.bar)
    return (
        '<div style="background:#eee;border-radius:4px;height:14px">'
        f'<div style="background:{_RED if is_severe else _AMBER};border-radius:4px;height:14px;width:{width}%"></div>'
        "</div>"
    )
