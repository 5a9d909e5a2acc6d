"""Run the PayPal stand-in by itself: `python -m tests.standins.paypal_process FOLDER [--webhook-url URL]`.

FOLDER gets `paypal.env`, the settings that point Meterbook here, and the root of the test authority. Approve an order
with `curl -X POST URL/_control/orders/ORDER/approve`, see what was taken at `URL/_control/ledger`. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from tests.standins.paypal_server import WEBHOOK_ID, PayPalStandIn


def settings_of(standin: PayPalStandIn, ca_file: Path) -> dict[str, str]:
    """Return the environment variables that point Meterbook at the stand-in."""
    return {
        "METERBOOK_PAYPAL_CLIENT_ID": standin.client_id,
        "METERBOOK_PAYPAL_CLIENT_SECRET": standin.client_secret,
        "METERBOOK_PAYPAL_API_BASE": standin.url,
        "METERBOOK_PAYPAL_WEBHOOK_IDS": WEBHOOK_ID,
        "METERBOOK_PAYPAL_CERT_PREFIXES": standin.cert_prefix,
        "METERBOOK_PAYPAL_CA_FILE": str(ca_file),
        "METERBOOK_PAYMENT_RETURN_URL": f"{standin.url}/checkoutnow",
    }


async def run(folder: Path, webhook_url: str | None) -> None:
    """Listen, write the folder's files, and serve until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    standin = PayPalStandIn()
    await standin.start()
    try:
        standin.webhooks.settings = standin.webhooks.settings.changed({"url": webhook_url})
        folder.mkdir(parents=True, exist_ok=True)
        ca_file = (folder / "paypal-ca.pem").resolve()
        ca_file.write_bytes(standin.authority.pem)
        lines = [f"{name}={value}\n" for name, value in settings_of(standin, ca_file).items()]
        partial = folder / "paypal.env.part"
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(folder / "paypal.env")
        await stop.wait()
    finally:
        await standin.stop()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.standins.paypal_process", description=__doc__)
    parser.add_argument("folder", type=Path, help="gets paypal.env and paypal-ca.pem when it listens")
    parser.add_argument("--webhook-url", help="where events are posted")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.folder, arguments.webhook_url))


if __name__ == "__main__":
    main()
