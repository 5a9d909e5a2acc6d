"""Commands of metering, mounted on `meterbook` itself."""

from __future__ import annotations

import typer

from metering.dead_letters.commands import app as dead_letter_app
from metering.meter_commands import app as meter_app
from metering.usage_commands import app as usage_app

app = typer.Typer()
app.add_typer(dead_letter_app, name="deadletters")
app.add_typer(usage_app, name="usage")
app.add_typer(meter_app, name="meters")
