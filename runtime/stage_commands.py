"""Which commands the stages bring. A stage is imported when one of its commands is asked for, not when a worker starts.

Importing them all takes seconds of processor time, which a worker that was killed would pay each time it starts again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

Mount = Callable[[typer.Typer], Any]


def _stack(app: typer.Typer) -> None:
    from runtime.stack import commands

    for command in (commands.up, commands.down, commands.status, commands.logs):
        app.command()(command)


def _demo(app: typer.Typer) -> None:
    from runtime.demo.command import demo

    app.command()(demo)


def _rate(app: typer.Typer) -> None:
    from rating.commands import rate

    app.command()(rate)


def _explain(app: typer.Typer) -> None:
    from invoicing.explain_command import explain

    app.command()(explain)


def _simulate(app: typer.Typer) -> None:
    from rating.simulate_command import create_command
    from runtime.processes.price_book import read_price_book

    app.command()(create_command(read_price_book))


def _prorate(app: typer.Typer) -> None:
    from rating.prorate_commands import prorate

    app.command()(prorate)


def _catalogue(app: typer.Typer) -> None:
    from catalogues.commands import app as found

    app.add_typer(found, name="catalogue")


def _contract(app: typer.Typer) -> None:
    from runtime.processes.contracts import create_app

    app.add_typer(create_app(), name="contract")


def _tenant(app: typer.Typer) -> None:
    from subscriptions.commands import app as found

    app.add_typer(found, name="tenant")


def _subscription(app: typer.Typer) -> None:
    from runtime.processes.preview import preview
    from subscriptions.subscription_commands import app as found

    app.add_typer(found, name="subscription")
    found.command()(preview)


def _invoice(app: typer.Typer) -> None:
    from invoicing.commands import app as found

    app.add_typer(found, name="invoice")


def _tax(app: typer.Typer) -> None:
    from invoicing.tax_commands import app as found

    app.add_typer(found, name="tax")


def _metering(app: typer.Typer) -> None:
    from metering.commands import app as found

    app.add_typer(found)


def _reconcile(app: typer.Typer) -> None:
    from metering.reconcile.command import create_command
    from runtime.processes.reconcile import open_reconciler

    app.command()(create_command(open_reconciler))


def _payment_method(app: typer.Typer) -> None:
    from payments.commands import app as found

    app.add_typer(found, name="payment-method")


def _bank(app: typer.Typer) -> None:
    from runtime.processes.bank import create_app

    app.add_typer(create_app(), name="bank")


def _payment(app: typer.Typer) -> None:
    from payments.payment_commands import app as found

    app.add_typer(found, name="payment")


def _quotas(app: typer.Typer) -> None:
    from quotas.commands import entitlement_app, grant_app

    app.add_typer(entitlement_app, name="entitlements")
    app.add_typer(grant_app, name="grants")


def _alerts(app: typer.Typer) -> None:
    from alerts.commands import app as found

    app.add_typer(found, name="alerts")


def _coupon(app: typer.Typer) -> None:
    from subscriptions.coupon_commands import app as found

    app.add_typer(found, name="coupon")


def _credits(app: typer.Typer) -> None:
    from subscriptions.credit_commands import app as found

    app.add_typer(found, name="credits")


def _ledger(app: typer.Typer) -> None:
    from ledger.commands import app as found
    from runtime.processes.ledger_history import catch_up

    found.command()(catch_up)
    app.add_typer(found, name="ledger")


def _dunning(app: typer.Typer) -> None:
    from payments.dunning.commands import app as found

    app.add_typer(found, name="dunning")


# What brings which commands, in the order of the help.
STAGES: tuple[tuple[Mount, tuple[str, ...]], ...] = (
    (_stack, ("up", "down", "status", "logs")),
    (_demo, ("demo",)),
    (_rate, ("rate",)),
    (_explain, ("explain",)),
    (_simulate, ("simulate",)),
    (_prorate, ("prorate",)),
    (_catalogue, ("catalogue",)),
    (_contract, ("contract",)),
    (_tenant, ("tenant",)),
    (_subscription, ("subscription",)),
    (_invoice, ("invoice",)),
    (_tax, ("tax",)),
    (_metering, ("deadletters", "usage", "meters")),
    (_reconcile, ("reconcile",)),
    (_payment_method, ("payment-method",)),
    (_bank, ("bank",)),
    (_payment, ("payment",)),
    (_quotas, ("entitlements", "grants")),
    (_alerts, ("alerts",)),
    (_coupon, ("coupon",)),
    (_credits, ("credits",)),
    (_ledger, ("ledger",)),
    (_dunning, ("dunning",)),
)
_MOUNTS = {name: mount for mount, names in STAGES for name in names}


class StageGroup(TyperGroup):
    """A group that finds commands of stages when they are asked for, and all of them for its help."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; an unknown name has all of them loaded, so that the likely one can be told."""
        if cmd_name not in self.commands:
            for mount in {_MOUNTS[cmd_name]} if cmd_name in _MOUNTS else set(_MOUNTS.values()):
                self.commands.update(mounted(mount))
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names without importing anything."""
        return [*(name for name in super().list_commands(ctx) if name not in _MOUNTS), *_MOUNTS]


def mounted(mount: Mount) -> dict[str, Any]:
    """Return the commands that a stage brings, by name."""
    app = typer.Typer()
    # One that is not mounted keeps a stage with a single command from being taken for the command itself.
    app.callback()(_nothing)
    mount(app)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(group.commands)


def _nothing() -> None:
    pass
