"""The e-mail of an alert: text and simple HTML. Owns its Message-ID, made from the alert's id: sent twice it is one."""

from __future__ import annotations

from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from html import escape

from alerts.domain.quota_alert import QuotaAlert

_RED, _AMBER = "#c62828", "#e09b00"


def build_alert_mail(alert: QuotaAlert, *, sender: str, recipients: tuple[str, ...], dated: datetime) -> EmailMessage:
    """Return the message; `dated` is when the alert was claimed, so that a repeat is the same to the byte."""
    mail = EmailMessage()
    mail["Subject"] = f"{alert.headline} ({alert.period})"
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = format_datetime(dated)
    mail["Message-ID"] = f"<{alert.alert_id}@{parseaddr(sender)[1].rpartition('@')[2] or 'meterbook.invalid'}>"
    # RFC 3834: no out-of-office replies to a machine.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_text(alert))
    mail.add_alternative(_html(alert), subtype="html")
    return mail


def _rows(alert: QuotaAlert) -> list[tuple[str, str]]:
    return [
        ("Tenant", alert.tenant),
        ("Meter", alert.meter),
        ("Used", f"{alert.used} of {alert.limit} {alert.unit} ({alert.percent})"),
        ("Remaining", f"{alert.remaining} {alert.unit}"),
        ("Period", alert.period),
        ("Crossed at", alert.crossed_at),
    ]


def _text(alert: QuotaAlert) -> str:
    rows = "\n".join(f"{name + ':':<12}{value}" for name, value in _rows(alert))
    return f"{alert.headline}.\n\n{alert.bar} {alert.percent}\n\n{rows}\n\n{alert.next_step}\n\n-- \n{alert.alert_id}\n"


def _html(alert: QuotaAlert) -> str:
    colour = _RED if alert.is_exhausted else _AMBER
    width = len(alert.bar.rstrip("░")) * 100 // len(alert.bar)
    rows = "".join(
        f'<tr><td style="color:#666;padding:2px 16px 2px 0">{escape(name)}</td><td>{escape(value)}</td></tr>'
        for name, value in _rows(alert)
    )
    return (
        '<!doctype html><html lang="en"><body style="font:15px/1.5 sans-serif;color:#222;max-width:560px">'
        f'<h2 style="font-size:18px">{escape(alert.headline)}</h2>'
        '<div style="background:#eee;border-radius:4px;height:14px">'
        f'<div style="background:{colour};border-radius:4px;height:14px;width:{width}%"></div></div>'
        f'<p style="margin:4px 0 16px"><b>{escape(alert.percent)}</b> of the limit</p>'
        f'<table style="border-collapse:collapse">{rows}</table>'
        f"<p>{escape(alert.next_step)}</p>"
        f'<p style="color:#999;font-size:12px">{escape(alert.alert_id)}</p></body></html>\n'
    )
