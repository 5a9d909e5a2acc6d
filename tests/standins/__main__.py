"""Run the stand-ins: `python -m tests.standins --state-file FILE [--webhook-url URL]`; SIGTERM ends them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.standins.slack_server import SlackStandIn
from tests.standins.smtp_server import SmtpStandIn
from tests.standins.stripe_server import StripeStandIn

DEFAULT_API_KEY = "sk_test_standin"
DEFAULT_WEBHOOK_SECRET = "whsec_standin"


async def run(arguments: argparse.Namespace) -> None:
    """Start all three, write the state file, and serve until a signal or the end of stdin."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if arguments.until_stdin_closes:
        await loop.connect_read_pipe(lambda: _EndOfInput(stop), sys.stdin)
    stripe = StripeStandIn(
        arguments.stripe_key, arguments.webhook_secret, arguments.webhook_url, run_tag=arguments.run_tag
    )
    slack, smtp = SlackStandIn(), SmtpStandIn()
    try:
        await stripe.start()
        await slack.start()
        await smtp.start()
        write_state(arguments.state_file, describe(stripe, slack, smtp))
        await stop.wait()
    finally:
        await stripe.stop()
        await slack.stop()
        await smtp.stop()


def describe(stripe: StripeStandIn, slack: SlackStandIn, smtp: SmtpStandIn) -> dict[str, object]:
    """Return the state file's content: where each stand-in listens and how it is steered."""
    return {
        "pid": os.getpid(),
        "stripe": {
            "url": stripe.url,
            "api_key": stripe.api_key,
            "webhook_secret": stripe.webhooks.settings.secret,
            "control": f"{stripe.url}/_control",
        },
        "slack": {"url": slack.url, "control": slack.control_url},
        "smtp": {"url": smtp.url, "control": smtp.control_url},
    }


def write_state(path: Path, state: dict[str, object]) -> None:
    """Write the state file whole or not at all: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


class _EndOfInput(asyncio.Protocol):
    """Ends the stand-ins when whoever started them is gone, even by kill -9."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop.set()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.standins", description=__doc__)
    parser.add_argument("--state-file", type=Path, required=True, help="gets the addresses when all listen")
    parser.add_argument("--webhook-url", help="where Stripe's events are posted; can also be set later by control")
    parser.add_argument("--stripe-key", default=DEFAULT_API_KEY, help="API key the product must use")
    parser.add_argument("--webhook-secret", default=DEFAULT_WEBHOOK_SECRET, help="secret events are signed with")
    parser.add_argument("--run-tag", help="letters and digits in every id; taken from the clock when absent")
    parser.add_argument("--until-stdin-closes", action="store_true", help="also end when standard input ends")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
