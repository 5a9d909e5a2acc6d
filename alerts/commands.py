"""`meterbook alerts`: what was told, what could not be, the rules, and the endpoints of outgoing webhooks."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from core.clock import SystemClock
from core.errors import Fault, InvalidInputError
from runtime.alert_rules import check_rule, delete_alert_rule, describe_rule, put_alert_rule, read_alert_rules
from runtime.postgres import Connection, create_pool
from runtime.settings import load_settings
from runtime.stored_alerts import list_alerts, resend_alert
from runtime.webhooks_out.endpoints import check_endpoint, list_endpoints, put_endpoint, rotate_secret
from runtime.webhooks_out.worker import outgoing_policy

app = typer.Typer(help="Alerts: what was told, the rules, and webhook endpoints.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_STATUSES = ("pending", "sent", "refused")
T = TypeVar("T")


@app.command(name="list")
def list_command(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    kind: Annotated[str | None, typer.Option(help="quota, spend or anomaly.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those with a delivery pending, sent or refused.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List alerts, newest first, with what became of each delivery."""
    if status is not None and status not in _STATUSES:
        raise InvalidInputError([Fault("unknown_status", f"expected one of {', '.join(_STATUSES)}", "status")])
    found = _on_store(lambda store: list_alerts(store, tenant=tenant, kind=kind, status=status, limit=limit))  # type: ignore[arg-type]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for alert in found:
        typer.echo(f"{alert['created_at'][:19]}Z  {alert['headline']}  [{alert['alert_id']}]")
        for delivery in alert["deliveries"]:
            why = f": {delivery['last_error']}" if delivery["last_error"] else ""
            typer.echo(f"    {delivery['channel']:<24} {delivery['status']}, tries {delivery['attempts']}{why}")


@app.command()
def resend(
    alert_id: Annotated[str | None, typer.Argument(help="One alert; or --refused.", show_default=False)] = None,
    refused: Annotated[bool, typer.Option("--refused", help="All that were given up.")] = False,
) -> None:
    """Send again what was not delivered; what was delivered is never sent twice."""
    if (alert_id is None) is not refused:
        raise InvalidInputError([Fault("one_of_both", "name one alert, or give --refused", "alert_id")])
    count = _on_store(lambda store: resend_alert(store, alert_id, SystemClock().now()))
    typer.echo(f"{count} deliveries go out again")


@app.command()
def rules(as_json: AsJson = False) -> None:
    """List the rules; the most specific level that has any decides for its kind, and disabled ones silence it."""
    settings = load_settings()
    found = _on_store(lambda store: read_alert_rules(store, settings.alert_thresholds_percent))
    if as_json:
        typer.echo(json.dumps([describe_rule(rule) for rule in found.rules]))
        return
    typer.echo("without a rule: " + ", ".join(f"{percent} %" for percent in found.default_percentages))
    for rule in found.rules:
        value = "" if rule.value is None else f"{rule.value:f} {rule.currency or {'percent': '%'}.get(rule.kind, '')}"
        whom = f"{rule.tenant_id or 'every tenant'}, {rule.charge_id or rule.meter_id or 'all'}"
        how = "off" if not rule.enabled else ", ".join(rule.channels) or "every channel"
        typer.echo(f"{rule.rule_id:<24} {rule.kind:<8} {value:<16} {whom:<40} {how}")


@app.command(name="set-rule")
def set_rule(
    rule_id: Annotated[str, typer.Argument(help="Names the rule; an existing one is replaced.")],
    kind: Annotated[str, typer.Option(help="percent, units, money or anomaly.")],
    value: Annotated[str | None, typer.Option(help="The threshold; none for anomaly.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of money, such as USD.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Every tenant without.")] = None,
    meter: Annotated[str | None, typer.Option(help="Every meter without; money then of all.")] = None,
    charge: Annotated[str | None, typer.Option(help="Money of one charge of the plan.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="slack, email, webhook; all without.")] = None,
    off: Annotated[bool, typer.Option("--off", help="A disabled rule silences its level.")] = False,
) -> None:
    """Write a rule."""
    given = {
        "kind": kind,
        "value": value,
        "currency": currency,
        "tenant_id": tenant,
        "meter": meter,
        "charge": charge,
        "channels": channel or [],
        "enabled": not off,
    }
    rule = check_rule(rule_id, given)
    _on_store(lambda store: put_alert_rule(store, rule, SystemClock().now()))
    typer.echo(f"rule {rule_id} is set")


@app.command(name="remove-rule")
def remove_rule(rule_id: Annotated[str, typer.Argument()]) -> None:
    """Remove a rule; what it said falls back to the next level."""
    _on_store(lambda store: delete_alert_rule(store, rule_id))
    typer.echo(f"rule {rule_id} is removed")


@app.command()
def endpoints(as_json: AsJson = False) -> None:
    """List the endpoints of outgoing webhooks; secrets are never shown again."""
    found = _on_store(list_endpoints)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for endpoint in found:
        state = "on" if endpoint["enabled"] else f"off ({endpoint['disabled_reason'] or 'by hand'})"
        typer.echo(
            f"{endpoint['endpoint_id']:<24} {endpoint['tenant_id'] or 'every tenant':<24} {state} {endpoint['url']}"
        )


@app.command(name="set-endpoint")
def set_endpoint(
    endpoint_id: Annotated[str, typer.Argument(help="Names the endpoint; an existing one is changed.")],
    url: Annotated[str, typer.Argument(help="https://…")],
    tenant: Annotated[str | None, typer.Option(help="Events of this tenant only.")] = None,
    event_type: Annotated[list[str] | None, typer.Option(help="Such as alert.triggered; all without.")] = None,
    off: Annotated[bool, typer.Option("--off", help="What waits for it is kept until it is on again.")] = False,
) -> None:
    """Write an endpoint. A new one's secret is printed, this once."""
    given = {"url": url, "tenant_id": tenant, "event_types": event_type or [], "enabled": not off}
    wish = check_endpoint(endpoint_id, given, outgoing_policy(load_settings()))
    secret = _on_store(lambda store: put_endpoint(store, wish, random_bytes=os.urandom, now=SystemClock().now()))
    typer.echo(f"endpoint {endpoint_id} is set" + (f"; its secret, shown once: {secret}" if secret else ""))


@app.command(name="rotate-secret")
def rotate_secret_command(endpoint_id: Annotated[str, typer.Argument()]) -> None:
    """Give an endpoint a new secret; for a day messages are signed with both."""
    secret = _on_store(
        lambda store: rotate_secret(store, endpoint_id, random_bytes=os.urandom, now=SystemClock().now())
    )
    typer.echo(f"the new secret, shown once: {secret}")


def _on_store(work: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        settings = load_settings()
        async with create_pool(settings, max_size=1) as pool, pool.connection() as connection:
            return await work(connection)

    return asyncio.run(run())
